"""The interfaces: one kind of component per file. Nothing here knows a concrete component."""
