"""Runs requests over a target and writes down the logits row behind every token that was emitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.drafters import BaseDrafter
from paceline.engine import Engine
from paceline.law import LawContext, TargetLaw
from paceline.pacer import FixedPacer
from paceline.params import SamplingParams
from paceline.request import Request
from paceline.text import TextStream
from paceline.tree import TreeBuilder
from paceline.types import DraftTree, Target


@dataclass(frozen=True)
class Job:
    """What a request asks for: everything its output may depend on."""

    prompt: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = (("max_tokens", 20),)
    seed: int = 0

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(**dict(self.options))


@dataclass
class Trace:
    """The tokens of an output and, for each, the row of logits that it was chosen from."""

    tokens: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)  # per step

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.tokens == other.tokens and not self.differing(other)

    def differing(self, other: Trace) -> list[int]:
        """Output indices whose logits differ in any bit."""
        pairs = list(zip(self.rows, other.rows, strict=False))
        return [i for i, (a, b) in enumerate(pairs) if a.tobytes() != b.tobytes()]


class Recorder:
    """A target that passes everything on and keeps the row of logits behind each emitted token."""

    def __init__(self, inner: Target) -> None:
        self._inner = inner
        self._open: dict[int, tuple[int, DraftTree, NDArray[np.float32]]] = {}
        self.traces: dict[int, Trace] = {}
        self.row_counts: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        self.row_counts.append(sum(len(tree) + 1 for _, tree in work))
        scores = self._inner.score(work)
        for (request, tree), logits in zip(work, scores, strict=True):
            self._settle(request)
            self._open[request.id] = (len(request.tokens), tree, logits.copy())
        return scores

    def free(self, request: Request) -> None:
        self._settle(request)
        self._inner.free(request)

    def _settle(self, request: Request) -> None:
        """Find the tokens that the last step emitted in its tree, and keep their rows."""
        if request.id not in self._open:
            return
        start, tree, logits = self._open.pop(request.id)
        trace = self.traces.setdefault(request.id, Trace())
        children = {edge: node for node, edge in enumerate(zip(tree.parents, tree.tokens, strict=True))}
        node, emitted = -1, request.tokens[start:]
        for token in emitted:
            trace.tokens.append(token)
            trace.rows.append(logits[node + 1])
            node = children.get((node, token), -2)
        trace.accepted.append(len(emitted) - 1)


def requests_of(target: Target, jobs: Sequence[Job], drafters: Sequence[BaseDrafter] = ()) -> list[Request]:
    context = LawContext(target.vocab_size)
    return [
        Request(
            job.prompt,
            TargetLaw(job.params, context, job.prompt, job.seed),
            TextStream(lambda ids: "", job.prompt, ()),
            frozenset(job.params.stop_token_ids),
            drafters,
            job.seed,
        )
        for job in jobs
    ]


def decode(
    target: Target,
    jobs: Sequence[Job],
    drafter: BaseDrafter | None = None,
    budget: int = 7,
    on_step: Callable[[Engine], None] = lambda engine: None,
) -> list[Trace]:
    """The traces of jobs decoded together."""
    recorder = Recorder(target)
    engine = Engine(recorder, FixedPacer(budget))
    requests = requests_of(target, jobs, [drafter] if drafter else [])
    for request in requests:
        engine.add(request)
    try:
        while not engine.scheduler.is_idle:
            engine.step()
            on_step(engine)
    finally:
        for request in requests:
            engine.abort(request)
    return [recorder.traces[request.id] for request in requests]


class PlainRuns:
    """Plain decoding of single jobs, alone, each done once: what everything else is compared with."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._known: dict[Job, Trace] = {}

    def __getitem__(self, job: Job) -> Trace:
        if job not in self._known:
            self._known[job] = decode(self.target, [job])[0]
        return self._known[job]


class RandomTrees(BaseDrafter):
    """Knows the truth and hides it: proposes part of it at an odd place among wrong siblings and cousins.

    `depth` bounds how much of the truth one tree holds; None lets chance decide, 0 is never right.
    `full` fills the budget in every step, so that the number of rows is known.
    """

    name = "random-trees"

    def __init__(
        self, plain: PlainRuns, jobs: Sequence[Job], seed: int = 0, depth: int | None = None, full: bool = False
    ):
        self._truth = {(job.prompt, job.seed): [*job.prompt, *plain[job].tokens] for job in jobs}
        self._vocab_size = plain.target.vocab_size
        self._rng = np.random.default_rng(seed)
        self._depth, self._full = depth, full

    def propose_one(self, request: Request, budget: int) -> DraftTree:
        rng = self._rng
        truth = self._truth[tuple(request.tokens[: request.num_prompt_tokens]), request.seed]
        assert request.tokens == truth[: len(request.tokens)], "the output left plain decoding's"
        ahead = truth[len(request.tokens) :]
        size = budget if self._full else int(rng.integers(0, budget + 1))
        deepest = min(size, len(ahead), size if self._depth is None else self._depth)
        depth = int(rng.integers(0, deepest + 1)) if self._depth is None else deepest
        builder = TreeBuilder(self.name)
        ends = [-1]  # nodes of the true path
        while len(builder) < size:
            missing = len(ends) - 1 < depth
            if missing and rng.random() < max(0.4, depth / size):
                ends.append(builder.add(ends[-1], ahead[len(ends) - 1], float(rng.random())))
            elif not missing or size - len(builder) > depth - (len(ends) - 1):
                self._add_wrong(builder, ends, ahead)
            else:
                ends.append(builder.add(ends[-1], ahead[len(ends) - 1], float(rng.random())))
        return builder.build()

    def _add_wrong(self, builder: TreeBuilder, ends: list[int], ahead: list[int]) -> None:
        parent = int(self._rng.integers(-1, len(builder)))
        right = ahead[ends.index(parent)] if parent in ends and ends.index(parent) < len(ahead) else -1
        token = int(self._rng.integers(0, self._vocab_size))
        if token != right:
            builder.add(parent, token, float(self._rng.random()))
