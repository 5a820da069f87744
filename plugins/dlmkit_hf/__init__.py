"""Encoders of transformers as score networks."""
