"""GLUE: fine-tuning a model on its nine tasks, against honest baselines."""
