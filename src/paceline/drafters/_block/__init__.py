"""What the drafter `block` does in Python or natively.

`growing` makes trees of what a head said, `native` does the same in the kernels, `trees` says which of them.
"""

from paceline.drafters._block.trees import Trees, trees_of

__all__ = ["Trees", "trees_of"]
