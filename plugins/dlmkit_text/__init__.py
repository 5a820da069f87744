"""Real text for training, tokenizers of its own, and metrics of generated text."""
