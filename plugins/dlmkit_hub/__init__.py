"""Models sent to the Hugging Face hub and fetched from it."""
