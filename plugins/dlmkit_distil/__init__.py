"""Distillation of continuous models to few steps, as parts."""
