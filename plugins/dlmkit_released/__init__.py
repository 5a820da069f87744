"""Importers of models that others released."""
