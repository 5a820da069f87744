"""Plugins: found, loaded and looked up; what a declaration must be; a new package's scaffold."""
