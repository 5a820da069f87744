"""The interfaces: one kind of component a file. Nothing here knows a concrete component."""
