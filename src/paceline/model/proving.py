"""Proves that a model's bits are stable on a numeric path, or trusts a proof that was kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.model import agreement, inspect, rotary
from paceline.model.decoder import Decoder
from paceline.model.forward import ROW_COUNTS
from paceline.model.interface import ATTENTION_NAME
from paceline.model.numerics import NumericPath, apply, free_memory, paths
from paceline.model.pool import PagePool
from paceline.model.private import adapt
from paceline.model.probe import ALWAYS, REFERENCE, proven_row_counts
from paceline.model.proof import Proof, digest_of
from paceline.model.quantized import cache_dtype, is_quantized
from paceline.model.rows import TreeWork
from paceline.model.seq2seq.attaching import attend_by
from paceline.model.shallow import num_different_layers, shortened
from paceline.model.states import state_pool

PROBE_PAGES = 16
_PROBE_SECONDS = 1.5
_COMMITTED = inspect.SAMPLE - 1  # tokens of the sample, so that the last is alone

Pages = Callable[[PreTrainedModel, inspect.Anatomy], int]  # of the pool that a model gets


def prove(model: PreTrainedModel, factory: Callable[[], PreTrainedModel], pages: Pages) -> tuple[Decoder, Proof]:
    """A decoder on the first numeric path on which the probe finds stable bits, and the proof.

    `model` is used up, and so is what `factory` makes where a second path has to be tried.

    Raises:
        ModelError: there is no such path, or the model does something that cannot be decoded exactly.
    """
    parts = inspect.anatomy(model)
    eager = agreement.eager_logits(model, parts)
    agreement.check_far(model, parts)
    tried, num_pages = candidates(model), pages(model, parts)
    for index, path in enumerate(tried):
        decoder = _decoder(factory() if index else model, parts, path, num_pages)
        decoder.row_counts = tuple(_row_counts(decoder, parts))
        logits = _stable_logits(decoder) if decoder.row_counts else None
        if logits is not None:
            ours = torch.from_numpy(logits).to(eager.device)
            agreement.check_agreement(decoder.model, ours, eager, parts.has_experts)
            return decoder, Proof(parts, path.name, decoder.row_counts, digest_of(logits))
    raise ModelError(
        f"{type(model).__name__} gives a row different bits beside different neighbours on every numeric path "
        f"tried ({', '.join(path.name for path in tried)}); it cannot be decoded exactly here"
    )


def trust(model: PreTrainedModel, proof: Proof, pages: Pages) -> Decoder | None:
    """A decoder on the path of a proof, if one forward gives the bits that it gave then; `model` is used up.

    The forward has a number of rows that is drawn anew each time: of few, where more only cost more.
    """
    inspect.refuse_by_config(model)
    path = next((path for path in candidates(model) if path.name == proof.path), None)
    if path is None:
        return None
    decoder = _decoder(model, proof.parts, path, pages(model, proof.parts))
    decoder.row_counts = proof.row_counts
    most = REFERENCE if decoder.is_exact_by_construction else decoder.max_rows
    decoder.row_counts = (Random().choice([n for n in proof.row_counts if inspect.SAMPLE <= n <= most]),)
    is_same = digest_of(_logits(decoder, 0)) == proof.digest
    decoder.row_counts = proof.row_counts
    return decoder if is_same else None


def candidates(model: PreTrainedModel, device: torch.device | None = None) -> list[NumericPath]:
    """The numeric paths that a model may be decoded on, the preferred first; `device` as in `inspect.anatomy`."""
    needs_native = is_quantized(model) or inspect.num_experts(model.config.get_text_config())
    return [p for p in paths(model.dtype, device or model.device) if p.library is not None or not needs_native]


def _decoder(model: PreTrainedModel, parts: inspect.Anatomy, path: NumericPath, num_pages: int) -> Decoder:
    attend_by(model, ATTENTION_NAME)
    adapt(model)
    rotary.install(model, inspect.limit_of(model.config.get_text_config()))
    apply(model, path)
    return Decoder(model, page_pool(model, parts, num_pages), (REFERENCE,), parts.max_length)


def page_pool(model: PreTrainedModel, parts: inspect.Anatomy, num_pages: int) -> PagePool:
    """The pages of a model, and states of its recurrent layers."""
    states = state_pool(parts.states, free_memory(model.device), model.device)
    return PagePool(parts.layers, num_pages, cache_dtype(model), model.device, states)


def _row_counts(decoder: Decoder, parts: inspect.Anatomy) -> Sequence[int]:
    """Row counts to use: those that the probe proved, or all if kernels that ought to be exact passed it."""
    if not decoder.is_exact_by_construction:
        return proven_row_counts(decoder, parts.vocab_size, parts.max_length, _PROBE_SECONDS)
    num_layers = num_different_layers(decoder.model, parts)
    with shortened(decoder.model, num_layers, len(parts.layers)):
        few = _shortened_decoder(decoder, parts, num_layers)
        counts = proven_row_counts(few, parts.vocab_size, parts.max_length, 0.0)
    return ROW_COUNTS if {*ALWAYS, REFERENCE} <= set(counts) else counts


def _shortened_decoder(decoder: Decoder, parts: inspect.Anatomy, num_layers: int) -> Decoder:
    """The model as it is now, in a decoder of its own; the whole one where it does not run."""
    if num_layers == len(parts.layers):
        return decoder
    pool = PagePool(parts.layers[:num_layers], PROBE_PAGES, cache_dtype(decoder.model), decoder.model.device)
    try:
        few = Decoder(decoder.model, pool, (REFERENCE,), parts.max_length)
    except Exception:  # code that counts its layers elsewhere
        return decoder
    return few if few.is_exact_by_construction else decoder


def _stable_logits(decoder: Decoder) -> NDArray[np.float32] | None:
    """(7, V) logits of a few tokens by the whole model; None if the last have other bits behind committed ones."""
    together, behind = _logits(decoder, 0), _logits(decoder, _COMMITTED)
    return together if np.array_equal(together[_COMMITTED:], behind) else None


def _logits(decoder: Decoder, num_committed: int) -> NDArray[np.float32]:
    """Logits of the sample's tokens in one forward, but for the first, which are committed before it."""
    tokens = inspect.sample_tokens(decoder.model)
    sequence = decoder.blank(len(tokens))
    assert sequence is not None
    try:
        if num_committed:
            decoder.feed_chain(sequence, tokens[:num_committed])
        rest = tokens[num_committed:]
        return decoder.forward([TreeWork(sequence, rest, range(-1, len(rest) - 1))])
    finally:
        decoder.pool.release(sequence)
