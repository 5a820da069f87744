"""Importers of released models: LLaDA, Dream, tiny-a2d, SDAR, Fast-dLLM v2, ModernBERT-chat."""
