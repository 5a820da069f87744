"""Flow language models, on one-hot vectors (FLM) and on a sphere (S-FLM), as parts."""
