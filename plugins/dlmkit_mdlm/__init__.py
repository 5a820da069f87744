"""Masked diffusion (MDLM), as interchangeable parts."""
