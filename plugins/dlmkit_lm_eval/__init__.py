"""A model of dlmkit for EleutherAI's lm-evaluation-harness."""
