"""Training: one loop that yields a record per step, and consumers of what it yields."""
