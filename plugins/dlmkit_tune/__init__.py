"""Adaptation of autoregressive models and instruction tuning."""
