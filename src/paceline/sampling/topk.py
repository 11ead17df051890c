"""The likeliest tokens of rows of logits and their chances, at the price of reading the rows. Shared by drafters.

Knows nothing of requests or drafts. V is the vocabulary, R the number of rows asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Ids = NDArray[np.signedinteger[Any]]

SAMPLED = 4096  # logits, about, that a large vocabulary's sum of weights is estimated from


def likeliest(logits: Logits, rows: Sequence[int], count: int) -> tuple[Ids, Logits]:
    """Tokens (R, min(count, V)) of some rows of contiguous `logits` (n, V), likeliest first, and their chances.

    The tokens are exactly those of the largest logits, equals in any order. Chances are the softmax's, estimated
    from a part of the unlikely logits if V is at least twice `SAMPLED`; a row's are at most 1 together.
    """
    ids = _candidates(logits, rows, count)
    values = logits.reshape(-1)[ids + np.array(rows)[:, None] * logits.shape[1]]
    count, num_candidates = min(count, logits.shape[1]), values.shape[1]
    line = np.arange(len(rows))[:, None]
    best = values.argpartition(num_candidates - count, axis=1)[:, num_candidates - count :]
    best = best[line, (-values[line, best]).argsort(axis=1)]
    return ids[line, best], _chances(values[line, best], logits, rows)


def _candidates(logits: Logits, rows: Sequence[int], count: int) -> Ids:
    """Ids (R, c) among which are those of the `count` largest of each row; c is about sqrt(V count).

    A row is cut into blocks. Its largest lie in the `count` blocks with the largest maxima, or in the tail that fills
    no block, so that the one pass over V is a maximum, which vectorises: block j is j, j + num_blocks, ...
    """
    vocab_size = logits.shape[1]
    size = int((vocab_size / count) ** 0.5)  # as many maxima as candidates
    num_blocks = vocab_size // max(size, 1)
    if num_blocks <= 2 * count:
        return np.broadcast_to(np.arange(vocab_size), (len(rows), vocab_size))
    whole = num_blocks * size
    peaks = np.empty((len(rows), num_blocks), np.float32)
    for peak, row in zip(peaks, rows, strict=True):
        logits[row, :whole].reshape(size, num_blocks).max(axis=0, out=peak)
    blocks = peaks.argpartition(num_blocks - count, axis=1)[:, num_blocks - count :]
    ids = (blocks[:, :, None] + np.arange(0, whole, num_blocks)).reshape(len(rows), -1)
    if whole == vocab_size:
        return ids
    tail = np.broadcast_to(np.arange(whole, vocab_size), (len(rows), vocab_size - whole))
    return np.concatenate((ids, tail), axis=1)


def _chances(top: Logits, logits: Logits, rows: Sequence[int]) -> Logits:
    """Chances of the largest logits (R, k) of some rows.

    The sum of all weights is that of every `stride`-th, each cut at the k-th largest, so that none weighs much,
    plus what the cut took from the k largest, which are known.
    """
    peak, least = top[:, :1], top[:, -1:]
    stride = max(logits.shape[1] // SAMPLED, 1)
    weights = np.minimum(logits[list(rows), ::stride], least)
    weights -= peak
    np.exp(weights, out=weights)
    chances: Logits = np.exp(top - peak)
    total = weights.sum(axis=1, keepdims=True) * np.float32(stride)
    total += (chances - chances[:, -1:]).sum(axis=1, keepdims=True)
    chances /= np.maximum(total, chances.sum(axis=1, keepdims=True))
    return chances
