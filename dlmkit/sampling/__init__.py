"""Sampling: one loop, its slots, and consumers of what it yields."""
