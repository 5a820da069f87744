"""Models that others released: recognised by their config, read strictly, compared with goldens."""
