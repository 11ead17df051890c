"""The baseline: an interpolated Kneser-Ney model over token n-grams, held in sorted arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
VOCABULARY = 4096  # 12 bits a token: five of them fit an int64


@dataclass
class Level:
    """The n-grams of one order with discounted probabilities, their contexts with what was set aside."""

    grams: Ints
    share: Floats
    contexts: Ints
    reserved: Floats


class KneserNey:
    """Counts at the highest order; at the others, how many different tokens come before."""

    def __init__(self, documents: list[npt.NDArray[np.uint16]], order: int = 5) -> None:
        self.order = order
        grams, counts = np.unique(np.concatenate([keys(d, order) for d in documents]), return_counts=True)
        self.levels = [level(grams, counts)]
        for n in range(order - 1, 0, -1):
            shorter = keys_of_suffixes(documents, grams, n)
            grams, counts = np.unique(shorter, return_counts=True)
            self.levels.insert(0, level(grams, counts))

    def log_probabilities(self, document: npt.NDArray[np.uint16]) -> Floats:
        """Natural logarithm of the probability of each token but the first, given up to four before it."""
        result = np.full(len(document) - 1, 1.0 / VOCABULARY)
        for n, table in enumerate(self.levels, start=1):
            window = keys(document, n)  # shorter than the document's tokens where the context would start before it
            at = np.arange(len(document) - len(window), len(document)) - 1
            window, at = window[at >= 0], at[at >= 0]
            context = window // VOCABULARY
            reserved = lookup(table.contexts, table.reserved, context, missing=1.0)
            result[at] = lookup(table.grams, table.share, window, missing=0.0) + reserved * result[at]
        return np.log(result)


def keys(document: npt.NDArray[np.uint16], n: int) -> Ints:
    """Every run of n tokens, as one number."""
    if len(document) < n:
        return np.zeros(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(document.astype(np.int64), n)
    return windows @ (VOCABULARY ** np.arange(n - 1, -1, -1, dtype=np.int64))


def keys_of_suffixes(documents: list[npt.NDArray[np.uint16]], grams: Ints, n: int) -> Ints:
    """The last n tokens of each different (n + 1)-gram; a document's opening n-gram continues its start."""
    openings = np.unique(np.concatenate([keys(d[:n], n) for d in documents]))
    return np.concatenate([grams % VOCABULARY**n, openings])


def level(grams: Ints, counts: Ints) -> Level:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / max(once + 2 * twice, 1) if once else 0.5
    contexts, owner = np.unique(grams // VOCABULARY, return_inverse=True)
    total = np.bincount(owner, weights=counts)
    kinds = np.bincount(owner)
    return Level(grams, (counts - discount) / total[owner], contexts, discount * kinds / total)


def lookup(table: Ints, values: Floats, wanted: Ints, missing: float) -> Floats:
    at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return np.where(table[at] == wanted, values[at], missing)
