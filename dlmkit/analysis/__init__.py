"""What a trained model does along its trajectory, and how that changes while it is trained."""
