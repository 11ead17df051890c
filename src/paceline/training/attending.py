"""Attention of many blocks in one forward: each sees the text before its anchor, and itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from paceline.errors import ModelError
from paceline.model.interface import SilentStep

_NEVER = -1e9  # a score; infinity would make the gradient of a row without any key undefined


class PackedBlocks(SilentStep):
    """A `ForwardStep` (model/interface.py) over rows that are A blocks of B slots in each of N sequences.

    A block at an anchor sees keys of its own document at earlier positions, and its own slots: all of them, or in a
    causal head those up to the slot itself. Never another block: its rows would not be there when it is served.

    Args:
        context: keys and values (N * S, H_kv, D) of each layer, in the layers' order.
        anchors: (N, A) where blocks begin in their sequences.
        documents: (N, S) which document of the sequence a token belongs to.
        block_size: B.
        is_causal: a slot sees none behind it.
    """

    def __init__(
        self,
        context: Sequence[tuple[torch.Tensor, torch.Tensor]],
        anchors: torch.Tensor,
        documents: torch.Tensor,
        block_size: int,
        is_causal: bool,
    ) -> None:
        self._layers: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(context)
        self._block_size = block_size
        places = torch.arange(documents.shape[1], device=documents.device)
        is_before = places < anchors[..., None]
        is_own = documents[:, None, :] == documents.gather(1, anchors)[..., None]
        slots = torch.arange(block_size, device=anchors.device)
        self._distance = (anchors[..., None] - places)[..., None, :] + slots[:, None]  # (N, A, B, S)
        self._hidden = ~(is_before & is_own)[:, :, None, :]  # (N, A, 1, S)
        self._later = (slots[:, None] < slots) & is_causal  # (B, B)
        self._apart = slots[:, None] - slots

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """(R, H, D_v) for rows in the order (N, A, B)."""
        if how.get("softcap") or how.get("sinks") is not None:
            raise ModelError("layers with softcaps or sinks are not trained; allowed: those of Qwen3 and Llama")
        keys, values = next(self._layers)
        n, a, b = *self._hidden.shape[:2], self._block_size
        num_kv, groups = key.shape[1], query.shape[1] // key.shape[1]
        asked = (query * how["scaling"]).view(n, a, b, num_kv, groups, -1).permute(0, 3, 1, 2, 4, 5)
        own_keys, own_values = (part.view(n, a, b, num_kv, -1).permute(0, 3, 1, 2, 4) for part in (key, value))
        all_keys, all_values = (part.view(n, -1, num_kv, part.shape[-1]).transpose(1, 2) for part in (keys, values))
        far = asked.flatten(2, 4) @ all_keys.transpose(-1, -2)
        near = asked.flatten(3, 4) @ own_keys.transpose(-1, -2)
        hidden, later = self._masks(how.get("window", 0))
        far = far.view(n, num_kv, a, b, groups, -1).masked_fill(hidden[:, None, :, :, None], _NEVER)
        near = near.view(n, num_kv, a, b, groups, b).masked_fill(later[:, None], _NEVER)
        shares = torch.cat([far, near], -1).softmax(-1, dtype=torch.float32).to(values.dtype)
        out = (shares[..., :-b].flatten(2, 4) @ all_values).view(n, num_kv, a, b * groups, -1)
        out = out + shares[..., -b:].flatten(3, 4) @ own_values
        return out.view(n, num_kv, a, b, groups, -1).permute(0, 2, 3, 1, 4, 5).reshape(n * a * b, query.shape[1], -1)

    def _masks(self, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What a slot does not see of the text (N, A, B or 1, S), and of its block (B, B)."""
        if not window:
            return self._hidden, self._later
        return self._hidden | (self._distance >= window), self._later | (self._apart >= window)
