"""What the drafter `block` does in Python or natively.

`growing` makes trees of what a head said, `native` does the same in the kernels, `trees` says which of them.
`observing` has the head learn from what the target says.
"""

from paceline.drafters._block.observing import BlockPupil, Observer
from paceline.drafters._block.trees import Trees, trees_of

__all__ = ["BlockPupil", "Observer", "Trees", "trees_of"]
