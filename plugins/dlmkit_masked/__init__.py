"""Decoding of masked models from small parts: order, quota, draw, remasking, window."""
