"""Heads: small networks that read a target's hidden states and propose what it may say next.

`config` says what a head is, one file each computes one kind of it, `formats/` reads and writes what others publish.
A head never decides what is emitted: one of random weights makes decoding slower and changes no byte.
"""
