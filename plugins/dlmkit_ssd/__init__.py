"""Semi-autoregressive simplex diffusion (SSD-LM), as interchangeable parts."""
