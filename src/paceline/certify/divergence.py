"""A difference explained: the step in which it arose is scored again on fresh caches, plain and with its trees.

- *law*: the logits have plain decoding's bits and another token was chosen from them;
- *arithmetic*: on fresh caches too, the row gets other bits in its tree and batch than alone;
- *state*: on fresh caches the row has the same bits as alone: the cache it was computed over held something else.
  If it was off by no more than rounding, the cache held the right rows, rounded otherwise: *arithmetic* of an earlier
  step. That line is a judgement; the others are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.engine.ports import Target
from paceline.engine.request import Hints, Request, fresh_tenant
from paceline.engine.tree import EMPTY, DraftTree
from paceline.llm import LLM
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.testing.recorder import Mismatch, StepWork
from paceline.text.stream import TextStream

_EXPLANATIONS = {
    "law": "the logits have the bits of plain decoding, and another token was chosen from them",
    "arithmetic": "scored again over a fresh cache, the row has other bits in its draft tree and batch than alone",
    "state": "scored again over a fresh cache, the row has the bits that it has alone: the cache held something else",
    "earlier": "scored again over a fresh cache, the row has the bits that it has alone, and it was off by no more "
    "than rounding: an earlier step has stored rows that were rounded otherwise",
    "unknown": "the step could not be scored again: the cache has no room for it",
}

_ROUNDING = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}  # of a row's largest logit


@dataclass(frozen=True)
class Divergence:
    """The first decision that is not the plain one, where it was made, and why."""

    label: str  # the way to decode and the kind of sampling
    output: int  # of the outputs that were decoded together
    index: int  # of the token in its output
    position: int  # of the token from the start of the prompt
    token: int
    token_text: str
    expected_token: int | None
    expected_text: str
    top_gap: float  # between the two likeliest logits of the plain row
    row_difference: float  # largest difference of a logit from the plain row
    num_rows: int  # of the forward
    depth: int  # of the row in its draft tree
    cause: str  # "law", "arithmetic", "state" or "unknown"
    explanation: str


def explain(llm: LLM, mismatch: Mismatch, label: str) -> Divergence:
    """Where a mismatch is, and what caused it; runs two forwards on the LLM's target."""
    work = mismatch.step[mismatch.place]
    history = (*work.tokens, *_path_tokens(work.tree, mismatch.node))
    plain = _score(llm.target, [replace(work, tokens=history, tree=EMPTY)])
    again = _score(llm.target, mismatch.step)
    row = plain[0][0] if plain is not None else mismatch.row
    lower, higher = np.partition(row, row.size - 2)[-2:]
    difference = float(np.abs(mismatch.row.astype(np.float64) - row).max())
    kind = "unknown"
    if mismatch.has_equal_bits:
        kind = "law"
    elif plain is not None and again is not None:
        is_rounding = difference <= _ROUNDING[llm.target.numerics().get("dtype", "float32")] * np.abs(row).max()
        is_even = again[mismatch.place][mismatch.node + 1].tobytes() == row.tobytes()
        kind = ("earlier" if is_rounding else "state") if is_even else "arithmetic"
    return Divergence(
        label,
        mismatch.request,
        mismatch.index,
        mismatch.num_prompt_tokens + mismatch.index,
        mismatch.token,
        _text(llm, mismatch.token),
        mismatch.expected_token,
        _text(llm, mismatch.expected_token),
        float(higher - lower),
        difference,
        sum(len(one.tree) + 1 for one in mismatch.step),
        len(_path_tokens(work.tree, mismatch.node)),
        "arithmetic" if kind == "earlier" else kind,
        _EXPLANATIONS[kind],
    )


def _score(target: Target, step: Sequence[StepWork]) -> list[NDArray[np.float32]] | None:
    """Logits of trees over freshly prefilled caches; None if there is no room for them."""
    requests = [fresh_request(work.tokens, target.vocab_size, work.source) for work in step]
    try:
        for request in requests:
            if not target.reserve(request, 0):
                return None
            while (num_unread := target.num_unread(request)) > 0:
                target.read(request, num_unread)
        if any(target.grow(r, len(work.tree) + 1) <= len(work.tree) for r, work in zip(requests, step, strict=True)):
            return None
        return target.score([(r, work.tree) for r, work in zip(requests, step, strict=True)])
    finally:
        for request in requests:
            target.free(request)


def fresh_request(tokens: Sequence[int], vocab_size: int, source: Sequence[int] = ()) -> Request:
    """A request for one token that is never decoded: it only brings tokens to a target, and nobody's has read them."""
    law = Sampler(SamplingParams(max_tokens=1), SamplerContext(vocab_size), tokens, 0)
    hints = Hints(tenant=fresh_tenant())
    return Request(tokens, law, TextStream(lambda ids: "", tokens, ()), frozenset(), hints=hints, source=source)


def _path_tokens(tree: DraftTree, node: int) -> list[int]:
    found: list[int] = []
    while node >= 0:
        found.append(tree.tokens[node])
        node = tree.parents[node]
    return found[::-1]


def _text(llm: LLM, token: int | None) -> str:
    if token is None:
        return "(the output had ended)"
    tokenizer: Any = llm.tokenizer
    return str(tokenizer.inner.decode([token])) if tokenizer is not None else ""
