"""Callbacks from compute: authenticated before they are read, and harmless when they come again."""
