"""Heads in their target: what they keep of its hidden states, and their own forwards over rows of its pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.errors import ModelError, first_line
from paceline.heads.chained import ChainedHead
from paceline.heads.medusa import MedusaHead
from paceline.model.head_forward import MAX_ROWS, head_forward
from paceline.model.hosting import Host, Kept
from paceline.model.interface import SilentStep, answered_by
from paceline.model.numerics import apply_to_head
from paceline.model.pool import CachedSequence, LayerCache, LayerShape, head_index
from paceline.native.frame import FrameSequence

Floats = NDArray[np.float32]


class HeadRows(NamedTuple):
    """Rows of one request: where they stand, what they are fed."""

    where: FrameSequence
    tokens: Sequence[int]
    states: Sequence[torch.Tensor]  # (..., width) each, one behind the other
    spare: Sequence[int] = ()  # slots behind them that nothing is kept in


class _StatesGuest:
    """Keeps each position's state, as the keys of a layer: see `Guest`."""

    def __init__(self, head: Any, width: int, context_bytes: int) -> None:
        self._head, self.context_bytes = head, context_bytes
        self.taps = head.config.taps
        self.shapes = [LayerShape(1, width, 1)]

    def keep(self, taps: Sequence[torch.Tensor], positions: torch.Tensor) -> Kept:
        """See `Guest`."""
        states = self._head.states(taps)[0].unsqueeze(1)
        return [(states, states[..., :1])]


class ChainedInTarget:
    """A chained head that is bound to a host's model; it belongs to the engine's thread."""

    max_rows = MAX_ROWS

    def __init__(self, head: ChainedHead, host: Host) -> None:
        mixing = sum(weight.numel() for weight in head.mixing_weights()) * host.model.dtype.itemsize
        apply_to_head(head, host.model)
        self.head, self._host = head, host
        self._guest = _StatesGuest(head, head.width, mixing)
        self._layers = [host.attach(self._guest), own := host.pool.add_guests(_shapes(head))]
        self._kept = self._layers[0][0]
        device = host.model.device
        tokens, positions = torch.zeros(2, MAX_ROWS, dtype=torch.int64, device=device)
        states = torch.zeros(MAX_ROWS, head.width, dtype=host.model.dtype, device=device)
        self._forward = head_forward(self._compute, (tokens, positions, states), own, host.pool.num_pages)

    def leave(self) -> None:
        """Have the target keep nothing for it any more."""
        self._host.detach(self._guest, *self._layers)

    def states_of(self, sequence: CachedSequence, start: int, count: int) -> torch.Tensor:
        """(count, width): what the target's forward left of positions from `start` on."""
        return _read(self._kept, sequence, start, count)

    def mask_states(self, count: int) -> torch.Tensor:
        """(count, width): what stands for positions that the target has not seen, of a head that drafts in parallel."""
        with torch.inference_mode():
            return self.head.mask_state()[0].float().expand(count, -1)  # type: ignore[operator,no-any-return]

    @torch.inference_mode()
    def run(self, rows: Sequence[HeadRows]) -> tuple[Floats, torch.Tensor]:
        """Logits (R, num_logits) and states of the next rows (R, width), of at most `max_rows` rows in all."""
        tokens, positions, states = self._forward.inputs
        first = 0
        for item in rows:
            here = slice(first, first + len(item.tokens))
            tokens[here] = torch.tensor(item.tokens)
            places = torch.tensor(list(item.where.positions))
            positions[here] = places.clamp(max=self._host.last_position)
            states[here] = torch.cat([part.view(-1, self.head.width) for part in item.states])
            first = here.stop
        out = self._forward.run([item.where for item in rows]).cpu()
        count = out.shape[1] - self.head.width
        return out[:, :count].numpy(), out[:, count:].clone()

    def _compute(self, tokens: torch.Tensor, positions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        after, logits = self.head(tokens[None], states[None], positions[None])
        return torch.cat([logits[0].float(), after[0].float()], -1)


class MedusaInTarget:
    """Medusa's heads, bound to a host's model; they belong to the engine's thread."""

    max_rows = MAX_ROWS

    def __init__(self, head: MedusaHead, host: Host) -> None:
        apply_to_head(head, host.model)
        self.head, self._host = head, host
        width = head.config.hidden_size
        self._guest = _StatesGuest(head, width, 0)
        self._layers = host.attach(self._guest)
        (self._kept,) = self._layers
        states = torch.zeros(MAX_ROWS, width, dtype=host.model.dtype, device=host.model.device)
        self._forward = head_forward(self._compute, (states,), [], host.pool.num_pages)

    def leave(self) -> None:
        """Have the target keep nothing for it any more."""
        self._host.detach(self._guest, self._layers)

    @torch.inference_mode()
    def run(self, sequences: Sequence[CachedSequence]) -> Floats:
        """Logits (sequences, heads, num_logits), each of the last committed position."""
        (states,) = self._forward.inputs
        where = []
        for row, sequence in enumerate(sequences):
            last = sequence.length - 1
            states[row] = _read(self._kept, sequence, last, 1)[0]
            where.append(FrameSequence(sequence.pages, sequence.length, [last], sequence.slots_from(last, 1)))
        out = self._forward.run(where).cpu().numpy()
        return out.reshape(len(where), len(self.head.blocks), -1)

    def _compute(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([logits[0].float() for logits in self.head(states[None])], -1)


def _read(kept: LayerCache, sequence: CachedSequence, start: int, count: int) -> torch.Tensor:
    slots = np.array(sequence.slots_from(start, count), np.int64)
    states, _ = kept.read(head_index(slots, 1, kept.keys.device))
    return states


def _floats(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in model.parameters() if parameter.is_floating_point()]


class _Shapes(SilentStep):
    def __init__(self) -> None:
        self.found: list[LayerShape] = []

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        self.found.append(LayerShape(key.shape[1], key.shape[2], value.shape[2]))
        return super().attend(query, key, value, **how)


@torch.inference_mode()
def _shapes(head: ChainedHead) -> list[LayerShape]:
    """What its own layers keep for each row."""
    weight = next(iter(_floats(head)))
    token, step = torch.zeros(1, 1, dtype=torch.int64, device=weight.device), _Shapes()
    try:
        with answered_by(step):
            head(token, weight.new_zeros(1, 1, head.width), token)
    except RuntimeError as error:
        raise ModelError(f"the head does not run: its sizes do not go together ({first_line(error)})") from error
    return step.found
