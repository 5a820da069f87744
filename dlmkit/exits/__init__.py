"""Early exit: recorded runs, their replay, calibrated thresholds and their certificates."""
