"""Discrete diffusion to uniform noise (UDLM, arXiv 2412.10193; DUO, 2506.10892), as components."""
