"""Samplers, grids, statistics, exit rules and guidance for continuous diffusion, as components."""
