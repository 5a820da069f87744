"""Score entropy discrete diffusion (SEDD, arXiv 2310.16834), as interchangeable parts."""
