"""Attention and the vocabulary step: fast forms, each behind one function."""
