"""Kernels in C for what a step costs most: called on addresses, compiled at install where a compiler is.

library      which kernels are in use
ops          operations from tensors, checked
elementwise  PyTorch's small operations as native ones
recording    what a forward does, written down
program      a recording, run again
frame        the rows of a forward, for attention
attention    its operations
csrc/        paceline.h is the place to start; docs/kernels.md the one page about it
"""
