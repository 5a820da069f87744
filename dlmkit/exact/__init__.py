"""Exact denoisers (Bayes, Markov), context gain and intervals: what a model is compared with."""
