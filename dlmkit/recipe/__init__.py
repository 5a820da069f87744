"""Recipes: YAML that names one part of each kind. Reading and checking imports no torch."""
