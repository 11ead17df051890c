"""The types of tensors that GGUF files have: names, blocks, and what is made of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from paceline.formats.blocks import BLOCKS, BlockType


@dataclass(frozen=True)
class Kind:
    """A type of tensors: what a block holds and takes."""

    name: str
    weights: int = 1
    num_bytes: int = 1
    dtype: torch.dtype | None = None  # of one whose weights are floats as they are
    as_it_is: BlockType | None = None  # the kernels' own name for its blocks
    becomes: str = "Q8_0"  # what others are converted to
    is_exact: bool = False  # without loss

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes in a file."""
        return 8 * self.num_bytes / self.weights


def _float(name: str, dtype: torch.dtype) -> Kind:
    return Kind(name, 1, dtype.itemsize, dtype=dtype, becomes=name, is_exact=True)


def _native(block_type: BlockType) -> Kind:
    shape = BLOCKS[block_type]
    name = block_type.name
    return Kind(name, shape.weights, shape.num_bytes, as_it_is=block_type, becomes=name, is_exact=True)


_FLOATS = {0: _float("F32", torch.float32), 1: _float("F16", torch.float16), 30: _float("BF16", torch.bfloat16)}
_NATIVE = {
    2: _native(BlockType.Q4_0),
    3: _native(BlockType.Q4_1),
    8: _native(BlockType.Q8_0),
    12: _native(BlockType.Q4_K),
    13: _native(BlockType.Q5_K),
    14: _native(BlockType.Q6_K),
}
_OTHERS = {
    6: Kind("Q5_0", 32, 22, is_exact=True),
    7: Kind("Q5_1", 32, 24),
    10: Kind("Q2_K", 256, 84),
    11: Kind("Q3_K", 256, 110, becomes="Q6_K", is_exact=True),
    16: Kind("IQ2_XXS", 256, 66),
    17: Kind("IQ2_XS", 256, 74),
    18: Kind("IQ3_XXS", 256, 98),
    19: Kind("IQ1_S", 256, 50),
    20: Kind("IQ4_NL", 32, 18, is_exact=True),
    21: Kind("IQ3_S", 256, 110),
    22: Kind("IQ2_S", 256, 82),
    23: Kind("IQ4_XS", 256, 136, becomes="Q8_F or Q8_0", is_exact=True),
    29: Kind("IQ1_M", 256, 56),
    34: Kind("TQ1_0", 256, 54, is_exact=True),
    35: Kind("TQ2_0", 256, 66, is_exact=True),
    39: Kind("MXFP4", 32, 17, becomes="Q8_0 or Q8_F", is_exact=True),
    40: Kind("NVFP4", 64, 36),
    41: Kind("Q1_0", 128, 18, is_exact=True),
}
KINDS: Final = _FLOATS | _NATIVE | _OTHERS
NAMED: Final = {kind.name: kind for kind in KINDS.values()}

# Numbers that are no weights' types, with the reason; all others do not exist.
REFUSED: Final = {
    **dict.fromkeys((4, 5), "Q4_2 and Q4_3 were removed from ggml"),
    **dict.fromkeys((31, 32, 33), "Q4_0 interleaved in files was removed from ggml"),
    **dict.fromkeys((36, 37, 38), "IQ4_NL interleaved in files was removed from ggml"),
    **dict.fromkeys((24, 25, 26, 27), "integers are no weights"),
    **dict.fromkeys((9, 15), "Q8_1 and Q8_K are for activations"),
    28: "weights of 64 bits are not computed with",
    42: "Q2_0 is not known here",
}
