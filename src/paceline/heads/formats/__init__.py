"""Heads on disk: one file for each layout that others publish, or that ours are written in."""
