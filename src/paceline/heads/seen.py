"""What a target says when it goes on with texts, and what it thinks meanwhile: rows to try heads on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.model.decoder import Decoder
from paceline.model.forward import ModuleForward
from paceline.model.hosting import tap_at
from paceline.model.pool import CachedSequence, PagePool
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TreeWork

NUM_TOKENS = 44  # that the target adds to each prompt
LONGEST_PROMPT = 2 * PAGE_SIZE - NUM_TOKENS  # tokens: what is beyond is left out
TEMPERATURES = (0.0, 0.7)  # by turns
_SEED = 17


@dataclass(frozen=True)
class Seen:
    """Rows of several texts, one after another: R of them, each one token at one position."""

    tokens: torch.Tensor  # (R,)
    texts: torch.Tensor  # (R,) which text each is of
    positions: torch.Tensor  # (R,) in its text
    is_said: torch.Tensor  # (R,) whether the target said it; the rest are prompts
    taps: dict[int, torch.Tensor]  # (R, H) each
    logits: torch.Tensor  # (R, V) float32, of what follows

    def ahead(self, count: int) -> torch.Tensor:
        """Rows behind which `count` more stand in the same text."""
        last = self.texts[count:] if count else self.texts
        return (self.texts[: len(last)] == last).nonzero().flatten()


@torch.inference_mode()
def look(decoder: Decoder, prompts: Sequence[Sequence[int]], taps: Iterable[int], last_position: int) -> Seen:
    """Let a target go on with prompts for `NUM_TOKENS` each, and read what it thought from its modules.

    Raises:
        ModelError: there is no room in its cache, or it has no such taps.
    """
    longest = max(min(LONGEST_PROMPT, last_position + 1 - NUM_TOKENS), 1)
    texts = _continued(decoder, [list(prompt[:longest]) for prompt in prompts])
    forward = ModuleForward(decoder.model, decoder.pool, last_position)
    seen: dict[int, list[torch.Tensor]] = {tap: [] for tap in taps}
    logits: list[torch.Tensor] = []
    for text in texts:
        sequence = _reserved(decoder.pool, len(text))
        try:
            logits.append(_tapped(decoder.model, seen, forward, sequence, text))
        finally:
            decoder.pool.release(sequence)
    device, lengths = decoder.model.device, [len(text) for text in texts]
    firsts = [min(len(prompt), longest) for prompt in prompts]
    return Seen(
        tokens=torch.tensor([token for text in texts for token in text], device=device),
        texts=torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(lengths)).to(device),
        positions=torch.cat([torch.arange(count) for count in lengths]).to(device),
        is_said=torch.cat([torch.arange(n) >= first for n, first in zip(lengths, firsts, strict=True)]).to(device),
        taps={tap: torch.cat(parts) for tap, parts in seen.items()},
        logits=torch.cat(logits),
    )


def _tapped(
    model: PreTrainedModel,
    seen: dict[int, list[torch.Tensor]],
    forward: ModuleForward,
    sequence: CachedSequence,
    text: Sequence[int],
) -> torch.Tensor:
    """Logits of a text (T, V); its taps are added to those seen."""
    logits = []
    with ExitStack() as hooks:
        for tap, parts in seen.items():
            hooks.callback(tap_at(model, tap, partial(_keep, parts, sequence, len(text))).remove)
        for start in range(0, len(text), PAGE_SIZE):
            page = text[start : start + PAGE_SIZE]
            logits.append(forward.prefill_logits(sequence, page).float().clone())
            sequence.length += len(page)
    return torch.cat(logits)


def _keep(parts: list[torch.Tensor], sequence: CachedSequence, length: int, hidden: torch.Tensor) -> None:
    """Note a page's tap (1, 64, H) but for the padding behind a text of some length."""
    parts.append(hidden[0, : length - sequence.length].clone())


def _continued(decoder: Decoder, texts: list[list[int]]) -> list[list[int]]:
    """The texts, each with what the target says behind it."""
    generator = torch.Generator().manual_seed(_SEED)
    sequences: list[CachedSequence] = []
    try:
        for text in texts:
            sequences.append(_reserved(decoder.pool, len(text) + NUM_TOKENS))
            decoder.prefill(sequences[-1], text[:-1])
        for _ in range(NUM_TOKENS):
            work = [TreeWork(s, [text[-1]], [-1]) for s, text in zip(sequences, texts, strict=True)]
            rows = torch.from_numpy(decoder.forward(work))
            for number, (sequence, text) in enumerate(zip(sequences, texts, strict=True)):
                sequence.advance(1)
                text.append(_drawn(rows[number], TEMPERATURES[number % len(TEMPERATURES)], generator))
    finally:
        for sequence in sequences:
            decoder.pool.release(sequence)
    return texts


def _drawn(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def _reserved(pool: PagePool, num_tokens: int) -> CachedSequence:
    sequence = pool.reserve(max(num_tokens, PAGE_SIZE))
    if sequence is None:
        raise ModelError(f"the cache has no room to try a head: {num_tokens} tokens are needed for each of its texts")
    return sequence
