"""Continuous diffusion for categorical data (CDCD, arXiv 2211.15089), as components."""
