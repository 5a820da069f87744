"""Metrics of generated text that other models judge, and of how texts repeat themselves."""
