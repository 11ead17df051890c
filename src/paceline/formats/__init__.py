"""Quantised weights: the blocks that kernels compute with, and the files that hold them."""
