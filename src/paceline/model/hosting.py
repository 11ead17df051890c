"""A target that hosts heads: what they read of its hidden states is made inside its own forward, and kept in its pages.

A guest asks for *taps*. *Tap j* is the residual stream that enters layer j; of L layers, tap L leaves the last one and
tap L + 1 is behind the final norm. As soon as a forward has them, the guest turns them into keys and values. They lie
in layers of their own, in the same pages and slots as the target's. So prompts, the prefix cache, draft trees, moved
rows and batches are right without a word about heads, and what nobody asked for is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.engine.request import Request
from paceline.errors import ModelError
from paceline.model.decoder import Decoder
from paceline.model.hf import HFTarget
from paceline.model.interface import current_step, positions
from paceline.model.layers import decoder_layers, final_norm
from paceline.model.pool import CachedSequence, LayerCache, LayerShape, PagePool
from paceline.model.reading import PATIENCE

Kept = list[tuple[torch.Tensor, torch.Tensor]]


class Guest(Protocol):
    """A head, as its host sees it."""

    @property
    def taps(self) -> Sequence[int]:
        """What it reads, in the order in which `keep` gets it."""

    @property
    def shapes(self) -> Sequence[LayerShape]:
        """What it keeps for each position."""

    @property
    def context_bytes(self) -> int:
        """Bytes of the weights that `keep` reads."""

    def keep(self, taps: Sequence[torch.Tensor], positions: torch.Tensor) -> Kept:
        """Keys and values (R, H_kv, D) for each of the shapes, of taps (1, R, H) at positions (1, R)."""


class Host:
    """The target of an engine, for heads. It belongs to the engine's thread."""

    def __init__(self, target: HFTarget) -> None:
        self._target = target
        self._taps = _Taps(target.decoder.model)
        self._num_bytes = 0  # of weights that heads add to a forward

    @property
    def model(self) -> PreTrainedModel:
        """The target's modules, as they run."""
        return self._target.decoder.model

    @property
    def decoder(self) -> Decoder:
        """What runs them, as the engine has it."""
        return self._target.decoder

    @property
    def pool(self) -> PagePool:
        """Its pages."""
        return self._target.decoder.pool

    @property
    def last_position(self) -> int:
        """No row's position is beyond."""
        return self._target.max_length - 1

    def attach(self, guest: Guest) -> list[LayerCache]:
        """Begin to keep what a guest asks for; where. Requests that run already go without.

        Raises:
            ModelError: the target has no such taps.
        """
        kept = self.pool.add_guests(guest.shapes)
        try:
            self._taps.add(guest, kept)
        except ModelError:
            self.pool.remove_guests(kept)
            raise
        self._take_up(guest.context_bytes)
        return kept

    def detach(self, guest: Guest, *layers: Sequence[LayerCache]) -> None:
        """Keep no more what a guest asked for, and give back all layers that it was given."""
        self._taps.remove(guest)
        for each in layers:
            self.pool.remove_guests(each)
        self._take_up(-guest.context_bytes)

    def _take_up(self, num_bytes: int) -> None:
        """Run otherwise from now on; heads add so many bytes of weights to a forward, or add them no more."""
        self._target.decoder.host()
        read = self._target.memory()["weight_bytes"]
        self._num_bytes += num_bytes
        self._target.hosted_share = self._num_bytes / (read + self._num_bytes)  # what is read says what it takes

    def sequence(self, request: Request) -> CachedSequence | None:
        """The pages of a request that is being decoded, and for which a head is asked now; None of others.

        `length` positions are committed, and heads' context of all of them is kept: if none was asked for long, it is
        not, and the pages are None as well.
        """
        sequence = self._target.sequence(request)
        if sequence is None or sequence.length > sequence.kept_for:
            return None
        sequence.kept_for, sequence.was_asked = sequence.length + PATIENCE, True
        return sequence

    def blank(self, num_positions: int) -> CachedSequence | None:
        """Pages of no request, to try a forward out in; None if too few are free."""
        sequence = self.pool.reserve(num_positions)
        if sequence is not None:
            sequence.length = num_positions
        return sequence


class _Taps:
    """Hooks of a model that gather what guests read while one of our forwards runs."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._seen: dict[int, torch.Tensor] = {}
        self._hooks: dict[int, Any] = {}  # by tap
        self._guests: list[tuple[Guest, list[LayerCache]]] = []

    def add(self, guest: Guest, kept: list[LayerCache]) -> None:
        """Have a guest's taps gathered."""
        for tap in sorted(set(guest.taps) - self._hooks.keys()):
            self._hooks[tap] = tap_at(self._model, tap, lambda hidden, tap=tap: self._see(tap, hidden))  # type: ignore[misc]
        self._guests.append((guest, kept))

    def remove(self, guest: Guest) -> None:
        """Gather no more what nobody else reads."""
        self._guests = [item for item in self._guests if item[0] is not guest]
        for tap in self._hooks.keys() - {tap for other, _ in self._guests for tap in other.taps}:
            self._hooks.pop(tap).remove()

    def _see(self, tap: int, hidden: torch.Tensor) -> None:
        step = current_step()
        if step is None or not step.keeps:
            return
        self._seen[tap] = hidden
        for guest, layers in self._guests:
            if tap == max(guest.taps):
                made = guest.keep([self._seen[each] for each in guest.taps], positions())
                for layer, (keys, values) in zip(layers, made, strict=True):
                    step.keep(layer, keys, values)
        if tap == max(self._hooks):
            self._seen.clear()


def tap_at(model: PreTrainedModel, tap: int, see: Callable[[torch.Tensor], None]) -> Any:
    """Have `see` told a tap (1, R, H) in every forward; what removes it again.

    Raises:
        ModelError: the model has no such tap.
    """
    layers = decoder_layers(model)
    if tap < len(layers):

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            see(args[0] if args else kwargs["hidden_states"])

        return layers[tap].register_forward_pre_hook(before, with_kwargs=True)

    def behind(module: nn.Module, args: Any, out: Any) -> None:
        see(out[0] if isinstance(out, tuple) else out)

    if tap == len(layers):
        return layers[-1].register_forward_hook(behind)
    if tap == len(layers) + 1:
        return final_norm(model).register_forward_hook(behind)
    raise ModelError(f"tap {tap} is asked for; allowed for {type(model).__name__}: 0 to {len(layers) + 1}")
