"""Models as folders of the Hugging Face hub: written, described, sent and fetched."""
