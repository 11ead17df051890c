"""The vocabulary of a head that knows fewer tokens than its target.

`d2t` is what is added to each of the head's tokens to make it the target's; some writers store the target's tokens
themselves. `t2d`, where it is there, is a mask of the tokens that were kept, in their order.
"""

from __future__ import annotations

import torch

from paceline.errors import ModelError
from paceline.heads.formats._files import HeadFiles

_INTEGERS = ("I64", "I32")


def target_ids(files: HeadFiles, size: int, vocab_size: int) -> list[torch.Tensor]:
    """The target's token (size,) of each of the head's: one reading of the file, or two between which nothing decides.

    Empty where the head knows all tokens.

    Raises:
        ModelError: there is no such list, or by no reading one of `size` different tokens of the target.
    """
    if "d2t" not in files.names:
        if size != vocab_size and "t2d" not in files.names:
            raise ModelError(f"the head knows {size} of {vocab_size} tokens, and neither d2t nor t2d says which")
        return [] if size == vocab_size else [_checked(_kept(files, vocab_size), size, vocab_size)]
    entry = files.tensors.entry(files.names["d2t"])
    if entry.dtype not in _INTEGERS or entry.shape != (size,):
        raise ModelError(f"d2t is {entry.dtype} {list(entry.shape)}; allowed: {' or '.join(_INTEGERS)} [{size}]")
    stored = files.tensors[files.names["d2t"]].long()
    readings = [ids for ids in (torch.arange(size) + stored, stored) if _are_ids(ids, vocab_size)]
    if "t2d" in files.names:
        kept = _kept(files, vocab_size)
        readings = [ids for ids in readings if torch.equal(ids.sort().values, kept)]
    if any(torch.equal(ids, torch.arange(vocab_size)) for ids in readings):
        return []
    if not readings:
        raise ModelError(f"d2t names no {size} different tokens below {vocab_size}, as t2d has them if it is there")
    return readings[:1] if len(readings) == 2 and torch.equal(*readings) else readings


def _kept(files: HeadFiles, vocab_size: int) -> torch.Tensor:
    """The tokens of the mask, ascending."""
    entry = files.tensors.entry(files.names["t2d"])
    if entry.shape != (vocab_size,):
        raise ModelError(f"t2d is {entry.dtype} {list(entry.shape)}; allowed: BOOL [{vocab_size}]")
    return files.tensors[files.names["t2d"]].bool().nonzero().flatten()


def _checked(ids: torch.Tensor, size: int, vocab_size: int) -> torch.Tensor:
    if len(ids) != size or not _are_ids(ids, vocab_size):
        raise ModelError(f"t2d keeps {len(ids)} tokens; allowed: {size}")
    return ids


def _are_ids(ids: torch.Tensor, vocab_size: int) -> bool:
    return int(ids.min()) >= 0 and int(ids.max()) < vocab_size and len(set(ids.tolist())) == len(ids)
