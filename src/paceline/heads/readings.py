"""The ways in which a head's files may be meant. Whoever wrote them knew which; their readers differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.heads.block import BlockHead
from paceline.heads.eagle import Eagle3Head
from paceline.heads.mtp import MTPHead

Reading = dict[str, Any]  # plain JSON: a name of `Readings.options` -> the value that was chosen
_SHARED = ("embed_tokens", "lm_head")


class Readings:
    """A head that is bound to its target, and what may be read otherwise of it. Reading it anew costs nothing.

    `vocabularies` are the lists of tokens that its files may mean; `brought` are the parts that the target has too
    and that it brought itself.
    """

    def __init__(
        self, head: Any, target: PreTrainedModel, vocabularies: Sequence[torch.Tensor], brought: Sequence[str]
    ) -> None:
        self.head = head
        self._depth = int(target.config.get_text_config().num_hidden_layers)
        self._stated = list(head.config.taps)
        self._vocabularies = vocabularies
        self._parts = {name: (getattr(head, name), _of(target, name)) for name in brought if _fits(head, target, name)}
        self.now: Reading = {}
        self.now = {name: value for name, (value, *_) in self.options().items()}

    @property
    def taps(self) -> set[int]:
        """All that any reading asks of the target."""
        return {tap for way in self._taps() for tap in way}

    def options(self) -> dict[str, list[Any]]:
        """What may be read otherwise -> how: as it is read now, and then the others. What spoils most comes first."""
        found: dict[str, list[Any]] = {}
        if len(self._vocabularies) > 1:
            found["vocabulary"] = self._led("vocabulary", list(range(len(self._vocabularies))))
        for name in self._parts:
            found[name] = self._led(name, ["own", "target's"])
        found["taps"] = self._led("taps", self._taps())
        for name in _flags_of(self.head):
            value = getattr(self.head.config, name)
            found[name] = [value, not value]
        return found

    def read(self, name: str, value: Any) -> None:
        """Read one thing in one way."""
        if name == "vocabulary":
            self.head.d2t = self._vocabularies[value]
        elif name in self._parts:
            setattr(self.head, name, self._parts[name][value != "own"])
        else:
            self.head.config = replace(self.head.config, **{name: tuple(value) if name == "taps" else value})
        self.now[name] = value

    def read_all(self, reading: Reading) -> None:
        """Read it as it was found to be meant."""
        for name, value in reading.items():
            self.read(name, value)

    def _led(self, name: str, ways: list[Any]) -> list[Any]:
        """The ways with that in which it is read now before the others."""
        now = self.now.get(name, ways[0])
        return [now, *(way for way in ways if way != now)]

    def _taps(self) -> list[list[int]]:
        """The taps that are stated, one layer off to either side, and with the last one behind the final norm."""
        taps, behind = self._stated, self._depth + 1
        ways = [taps, *([tap + shift for tap in taps] for shift in (-1, 1)), [*taps[:-1], behind]]
        return [way for i, way in enumerate(ways) if way not in ways[:i] and all(0 <= tap <= behind for tap in way)]


def _flags_of(head: Any) -> tuple[str, ...]:
    """What of a configuration writers and readers disagree on, that a draft depends on."""
    if isinstance(head, BlockHead):
        return ("predicts_from_anchor", "is_causal") if head.config.block_size > 1 else ()
    if isinstance(head, MTPHead):
        return ("is_hidden_first", "norm_output")
    if isinstance(head, Eagle3Head):
        is_parallel = head.config.mask_token_id >= 0
        return ("norm_before_residual", "norm_logits", *(() if is_parallel else ("norm_output",)))
    return ()


def brought_by(head: Any) -> list[str]:
    """The parts that a head which is not bound yet has of its own, though its target has them too."""
    return [name for name in _SHARED if getattr(head, name, None) is not None]


def _of(target: PreTrainedModel, name: str) -> Any:
    return target.get_input_embeddings() if name == "embed_tokens" else target.get_output_embeddings()


def _fits(head: Any, target: PreTrainedModel, name: str) -> bool:
    """Whether the target's part could stand for the head's own."""
    text, config = target.config.get_text_config(), head.config
    is_wide = config.layers.hidden_size == text.hidden_size
    return is_wide and (name == "embed_tokens" or config.num_logits == text.vocab_size)
