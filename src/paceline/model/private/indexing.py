"""Indexers of DeepSeek-V3.2 and its kin: what their code asks of their scores is written down, not computed.

An indexer is run as it is, and given something that stands for all keys in the place of its cache. So each family's
projections and rotations stay its own, and what is left is `Picks`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from paceline.errors import ModelError
from paceline.model.interface import NO_MASK
from paceline.model.picking import Picks
from paceline.model.private.adapters import adapter


class _Scores:
    """Stands for scores of all keys: notes what they are made of, until the best are asked for."""

    def __init__(self, key: torch.Tensor) -> None:
        self._key, self._scaling = key, 1.0
        self._query: torch.Tensor | None = None
        self._weights: torch.Tensor | None = None
        self.shape, self.dtype = (1, key.shape[1], sys.maxsize), key.dtype

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> _Scores:
        if func is torch.nn.functional.relu:
            return args[0]  # type: ignore[no-any-return]
        if func in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            return args[1]._multiplied(args[0])  # type: ignore[no-any-return]
        raise ModelError(f"an indexer scores keys by {getattr(func, '__name__', func)}, which is not known")

    def _multiplied(self, left: torch.Tensor) -> _Scores:
        """First by the queries (1, R, H, D), then by the heads' weights (1, R, 1, H)."""
        if self._query is None:
            self._query = left[0]
        else:
            self._weights = left[0, :, 0]
        return self

    def __mul__(self, factor: float) -> _Scores:
        self._scaling *= factor
        return self

    def same(self, *args: Any, **kwargs: Any) -> _Scores:
        """What changes nothing: shapes, and the mask, which is causal."""
        return self

    transpose = float = unsqueeze = squeeze = masked_fill = __add__ = to = same

    def topk(self, most: int, **how: Any) -> _Scores:
        """Ask for the best."""
        self._most = most
        return self

    @property
    def indices(self) -> _Asked:
        """The best, which only attention will know."""
        assert self._query is not None
        assert self._weights is not None
        return _Asked(Picks(self._query, self._key[0].unsqueeze(1), self._weights, self._scaling, self._most))


class _Asked:
    def __init__(self, picks: Picks) -> None:
        self._picks = picks

    def to(self, dtype: torch.dtype) -> Picks:
        """What is handed to the attention."""
        return self._picks


class _NoCache:
    def update_indexer(self, key: torch.Tensor, *where: Any) -> _Scores:
        """In the place of all keys so far."""
        return _Scores(key)


def indexed(family: str, prefix: str) -> None:
    """Register a family's model, which builds a mask, and its indexer."""

    @adapter(f"{family}.{prefix}Model")
    def _model(module: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "attention_mask": NO_MASK})

    @adapter(f"{family}.{prefix}Indexer")
    def _indexer(module: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "cache": _NoCache()})
