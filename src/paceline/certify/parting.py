"""Prompts that begin alike and then part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from paceline.model.prefix import PAGE_SIZE

_NUM_PROMPTS = 3
PARTED = 230  # tokens of the longest prompts that part: a row of theirs reads tiles that it may share


def parted_prompts(prompts: Sequence[tuple[int, ...]], room: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Prompts of up to `room` tokens that begin alike, made of parts of `prompts`."""
    text = [token for prompt in prompts for token in prompt]
    shared = list(islice(cycle(text), int(rng.integers(PAGE_SIZE, 2 * PAGE_SIZE + 9))))
    found = []
    for _ in range(_NUM_PROMPTS):
        length, start = int(rng.integers(PARTED - 30, PARTED)), int(rng.integers(len(text)))
        found.append((*shared, *islice(cycle(text), start, start + length - len(shared)))[:room])
    return list(dict.fromkeys(found))
