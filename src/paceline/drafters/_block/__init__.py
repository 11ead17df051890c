"""What the drafter `block` does in Python or natively.

`growing` makes trees of what a head said, `native` does the same in the kernels, `trees` says which of them.
`observing` has the head learn from what the target says. All but `growing` read PyTorch, so nothing is read here.
"""
