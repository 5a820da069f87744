"""Masking and Gaussian noise together (CANDI, arXiv 2510.22510), as interchangeable parts."""
