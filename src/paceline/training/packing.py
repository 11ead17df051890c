"""Documents of any length, packed into sequences of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.training.data import Document

_OPEN = 16  # sequences that are being filled


@dataclass(frozen=True)
class Packed:
    """Sequences (N, S) of tokens; `document` counts a sequence's documents from 0 and is -1 behind the last."""

    tokens: torch.Tensor
    positions: torch.Tensor  # in the document, from 0
    document: torch.Tensor
    is_output: torch.Tensor  # bool: the target wrote this token
    heat: torch.Tensor  # float: the temperature at which its document was written
    source: torch.Tensor  # the document's number in what was packed

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, chosen: slice | torch.Tensor, device: torch.device) -> Packed:
        """Some of the sequences, on a device."""
        return Packed(*(getattr(self, field.name)[chosen].to(device) for field in fields(self)))


def pack(documents: Sequence[Document], length: int, order: NDArray[np.int64] | None = None) -> Packed:
    """All documents in an order, each whole in one sequence; what is longer than `length` is cut at its end.

    First fit over the few sequences that are being filled, in the order in which they were begun.
    """
    done: list[list[int]] = []
    filling: list[tuple[list[int], int]] = []
    for number in np.arange(len(documents)) if order is None else order:
        size = min(len(documents[number].tokens), length)
        place = next((i for i, (_, used) in enumerate(filling) if used + size <= length), None)
        if place is None:
            filling.append(([int(number)], size))
        else:
            filling[place] = ([*filling[place][0], int(number)], filling[place][1] + size)
        if len(filling) > _OPEN:
            done.append(filling.pop(0)[0])
    done += [members for members, _ in filling]
    return _filled(documents, done, length)


def _filled(documents: Sequence[Document], sequences: Sequence[Sequence[int]], length: int) -> Packed:
    shape = (len(sequences), length)
    tokens, positions = np.zeros(shape, np.int64), np.tile(np.arange(length), (shape[0], 1))
    numbers, sources = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    is_output, heat = np.zeros(shape, bool), np.ones(shape, np.float32)
    for row, members in enumerate(sequences):
        start = 0
        for number, member in enumerate(members):
            document = documents[member]
            part = slice(start, start + min(len(document.tokens), length))
            size = part.stop - part.start
            tokens[row, part], positions[row, part] = document.tokens[:size], np.arange(size)
            numbers[row, part], sources[row, part] = number, member
            is_output[row, start + document.entry.num_prompt_tokens : part.stop] = True
            heat[row, part] = document.entry.temperature
            start = part.stop
        positions[row, start:] = np.arange(length - start)
    return Packed(*map(torch.from_numpy, (tokens, positions, numbers, is_output, heat, sources)))
