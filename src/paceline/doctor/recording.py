"""What the target said to each question, and what it thought: one pass, kept small enough to keep it all.

Of the logits behind a token the likeliest few are kept, and the token's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.doctor.questions import Question
from paceline.engine.ports import Pacer, StepTimes, Target
from paceline.engine.request import Request, StepOutcome, fresh_tenant
from paceline.engine.tree import DraftTree
from paceline.errors import RequestError
from paceline.llm import LLM
from paceline.pacing import FixedPacer
from paceline.sampling.noise import largest
from paceline.testing import ScriptedDrafter, WrappedPacer, WrappedTarget

_KEPT = 96  # logits of a row: more than any drafter asks for
NOTHING = -1e4  # the logit of those that were not kept
_READING = 63  # tokens of a given output that one forward reads


@dataclass(frozen=True, slots=True)
class Row:
    """The likeliest tokens at one place, and their logits."""

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]

    def write(self, row: NDArray[np.float32]) -> None:
        """Write it into a row of logits (V,)."""
        row.fill(NOTHING)
        row[self.tokens] = self.logits


@dataclass(frozen=True)
class RecordedOutput:
    """One question and its answer."""

    question: Question
    ids: tuple[int, ...]  # the prompt
    sampling: dict[str, Any]  # as decoded, and as to be decoded again
    tokens: tuple[int, ...]  # the output
    rows: tuple[Row, ...]  # behind each output token
    prefill_seconds: float = 0.0


def record(llm: LLM, question: Question, max_tokens: int) -> RecordedOutput:
    """Decode a question plainly, or read its answer where that is given.

    Raises:
        RequestError: a given output that is empty.
    """
    ids = llm.encode(question.prompt)
    room = min(llm.target.max_length, llm.target.capacity)
    if question.output is None:
        sampling: dict[str, Any] = {"seed": 0} | question.sampling | {"max_tokens": max_tokens}
        return _decoded(llm, question, tuple(ids[-(room - max_tokens) :]), sampling)
    output = _continuation(llm, question, ids)[: room - 1]
    return _read(llm, question, tuple(ids[-(room - len(output)) :]), output)


def _continuation(llm: LLM, question: Question, ids: Sequence[int]) -> tuple[int, ...]:
    """The tokens of a given output: those behind the prompt's own, or its own where the two grow together."""
    whole = llm.encode(question.prompt + (question.output or ""))
    output = whole[len(ids) :] if whole[: len(ids)] == list(ids) else llm.encode(question.output or "")
    if not output:
        raise RequestError(f"the output after {question.prompt[-40:]!r} has no tokens; allowed: at least one")
    return tuple(output)


def _decoded(llm: LLM, question: Question, ids: tuple[int, ...], sampling: dict[str, Any]) -> RecordedOutput:
    recorder = _RowRecorder(FixedPacer(0))
    output = llm.generate(list(ids), drafters="none", tenant=fresh_tenant(), pacer=recorder, **sampling)
    seconds = output.stats.prefill_seconds
    return RecordedOutput(question, ids, sampling, output.token_ids, tuple(recorder.rows), seconds)


def _read(llm: LLM, question: Question, ids: tuple[int, ...], output: tuple[int, ...]) -> RecordedOutput:
    """The answer as a draft that is always right, some dozens of tokens to a forward."""
    sampling = {"temperature": 0.0, "max_tokens": len(output), "ignore_eos": True}
    drafter = ScriptedDrafter(lambda request, budget: output[request.num_output_tokens :][:budget])
    recorder = _RowRecorder(FixedPacer(_READING))
    with LLM.from_target(
        _ForcedTarget(llm.target, output), llm.tokenizer, drafters=[drafter], pacer=recorder
    ) as reader:
        read = reader.generate(list(ids), tenant=fresh_tenant(), max_tokens=len(output), ignore_eos=True)
    return RecordedOutput(question, ids, sampling, output, tuple(recorder.rows), read.stats.prefill_seconds)


class _RowRecorder(WrappedPacer):
    """Keeps the rows behind all emitted tokens of one request."""

    def __init__(self, inner: Pacer) -> None:
        super().__init__(inner)
        self.rows: list[Row] = []

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        for outcome in outcomes:
            for node, token in zip((-1, *outcome.path), outcome.tokens, strict=False):
                self.rows.append(_kept(outcome.logits[node + 1], token.id))
        super().observe(outcomes, times)


def _kept(logits: NDArray[np.float32], token: int) -> Row:
    tokens = largest(logits, min(_KEPT, logits.size))
    if token not in tokens:
        tokens = np.append(tokens, token)
    return Row(tokens.astype(np.int64), logits[tokens].astype(np.float32))


class _ForcedTarget(WrappedTarget):
    """The target, were it a little keener on the tokens of a given output."""

    def __init__(self, inner: Target, output: tuple[int, ...]) -> None:
        super().__init__(inner)
        self._output = output

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """See `Target`: along the output, its next token is the likeliest."""
        scores = self.inner.score(work)
        for (request, _), logits in zip(work, scores, strict=True):
            wanted = self._output[request.num_output_tokens :]
            for row, token in zip(logits, wanted, strict=False):
                row[token] = max(row[token], np.nextafter(row.max(), np.float32(np.inf)))
        return scores
