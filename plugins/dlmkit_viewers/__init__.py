"""Viewers of one text as it comes into being: lines for a terminal, a page with a player."""
