"""Training: one loop that yields a record a step, and consumers of what it yields."""
