"""Trackers: TensorBoard and Trackio, each behind its own extra."""
