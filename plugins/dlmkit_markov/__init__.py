"""The exact test-bed as a model of a recipe: Markov text whose posterior is known."""
