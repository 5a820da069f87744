"""The Democratized Diffusion Language Model (DDLM, arXiv 2305.10818), as components and recipes."""
