"""From a folder to a head that is bound to its target, computes as it does, and is read as it was meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paceline.errors import ConfigError, ModelError, first_line
from paceline.heads.formats import FoundHead, open_head
from paceline.heads.probe import Fit, probe
from paceline.heads.readings import Reading, Readings, brought_by
from paceline.heads.seen import Seen, look
from paceline.model.decoder import Decoder
from paceline.model.hosting import Host
from paceline.model.inspect import sample_tokens
from paceline.model.proof import digest_of, settings_of
from paceline.model.rows import TreeWork

NUM_TEXTS = 8


@dataclass(frozen=True)
class Adopted:
    """A head ready to run, and what was found out about it."""

    found: FoundHead
    stated: Reading  # as its files say
    fit: Fit | None  # None where it was taken so

    @property
    def module(self) -> Any:
        """`BlockHead`, `ChainedHead` or `MedusaHead`."""
        return self.found.module

    @property
    def digest(self) -> str:
        """What tells its weights from others."""
        return self.found.digest


def adopt(
    folder: str | os.PathLike[str], kind: str | None, host: Host, prompts: Sequence[Sequence[int]], is_probed: bool
) -> Adopted:
    """The head in a folder, of a kind if one is named. `prompts` are what the target goes on with to try it.

    Without any these are made-up tokens.

    Raises:
        ConfigError: it is a head of another kind.
        ModelError: there is no head, or it does not fit the target.
    """
    found = open_head(folder)
    if kind is not None and found.kind != kind:
        raise ConfigError(
            f"{kind}: the head in {str(folder)!r} is of the kind {found.kind}; allowed: {found.kind}:path=…"
        )
    head, model = found.module, host.model
    brought = brought_by(head)
    head.bind(model)
    head.to(model.device, model.dtype)
    if found.vocabularies:
        head.d2t = found.vocabularies[0]
    readings = Readings(head, model, found.vocabularies, brought)
    stated = dict(readings.now)
    if not is_probed:
        return Adopted(found, stated, None)

    def seen() -> Seen:
        return look(host.decoder, prompts or made_up(sample_tokens(model)), readings.taps, host.last_position)

    about = {"head": found.digest, "target": fingerprint(host.decoder)}
    try:
        return Adopted(found, stated, probe(readings, seen, about))
    except RuntimeError as error:  # PyTorch's
        raise ModelError(f"the head in {str(folder)!r} does not run on this target: {first_line(error)}") from error
    except ModelError as error:
        if not found.made_for:
            raise
        raise ModelError(f"{error}. It says that it was made for {found.made_for!r}") from error


def fingerprint(decoder: Decoder) -> str:
    """What tells a target from others: its settings, and its logits of a few tokens to the bit.

    All weights would tell it too, but to hash those of a large model takes longer than to load a head.
    """
    tokens = sample_tokens(decoder.model)
    sequence = decoder.blank(len(tokens))
    if sequence is None:
        raise ModelError(f"the cache has no room for the {len(tokens)} tokens that a target is told by")
    try:
        logits = decoder.forward([TreeWork(sequence, tokens, range(-1, len(tokens) - 1))])
    finally:
        decoder.pool.release(sequence)
    return digest_of(np.frombuffer(f"{settings_of(decoder.model)} {digest_of(logits)}".encode(), np.uint8))


def made_up(tokens: Sequence[int]) -> list[list[int]]:
    """Prompts of a model without a tokenizer: its sample from each place on."""
    return [[*tokens[i % len(tokens) :], *tokens[: i % len(tokens)]] for i in range(NUM_TEXTS)]
