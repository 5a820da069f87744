"""ELF: flow matching on frozen embeddings, with the network as its own decoder, as parts."""
