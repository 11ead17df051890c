"""Runs requests over a target and keeps the row of logits behind every token that was emitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paceline.drafters import BaseDrafter
from paceline.engine.engine import Engine
from paceline.engine.ports import Target
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.pacing import FixedPacer
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.stream import TextStream


@dataclass(frozen=True)
class Job:
    """What a request asks for: everything that its output may depend on. The seed tells jobs apart."""

    prompt: tuple[int, ...]
    options: Mapping[str, Any] = field(hash=False)
    seed: int
    source: tuple[int, ...] = ()  # of an encoder-decoder, whose prompt begins its output

    def request(self, target: Target, drafters: Sequence[BaseDrafter] = ()) -> Request:
        params = SamplingParams(**self.options)
        law = Sampler(params, SamplerContext(target.vocab_size), self.prompt, self.seed)
        text = TextStream(lambda ids: "", self.prompt, ())
        return Request(
            self.prompt, law, text, frozenset(params.stop_token_ids), drafters, self.seed, source=self.source
        )


@dataclass
class Trace:
    """The tokens of an output, the logits that each was chosen from, and the drafts accepted in each step."""

    tokens: list[int] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)


class Recorder:
    """A target that passes everything on and keeps the row of logits behind each emitted token."""

    def __init__(self, inner: Target) -> None:
        self._inner = inner
        self._open: dict[int, tuple[int, DraftTree, NDArray[np.float32]]] = {}
        self.traces: dict[int, Trace] = {}
        self.num_rows: list[int] = []  # of each forward, before padding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        self.num_rows.append(sum(len(tree) + 1 for _, tree in work))
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
        nodes = {edge: node for node, edge in enumerate(zip(tree.parents, tree.tokens, strict=True))}
        node = -1
        for token in request.tokens[start:]:
            trace.tokens.append(token)
            trace.rows.append(logits[node + 1])
            node = nodes.get((node, token), len(tree))  # beyond the tree after the last token
        trace.accepted.append(len(request.tokens) - start - 1)


def decode(
    target: Target,
    jobs: Sequence[Job],
    drafter: BaseDrafter | None = None,
    budget: int = 7,
    on_step: Callable[[Engine], None] = lambda engine: None,
) -> list[Trace]:
    """The traces of jobs decoded together, each with up to `budget` draft nodes a step."""
    recorder = target if isinstance(target, Recorder) else Recorder(target)
    engine = Engine(recorder, FixedPacer(budget))
    requests = [job.request(target, [drafter] if drafter else []) for job in jobs]
    for request in requests:
        engine.add(request)
    try:
        while not engine.scheduler.is_idle:
            engine.step()
            on_step(engine)
    finally:
        for request in requests:
            engine.abort(request)
    for request in requests:
        if request.error is not None:
            raise request.error.__cause__ or request.error
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

    def differences(self, jobs: Sequence[Job], traces: Sequence[Trace]) -> list[str]:
        """What is not bit for bit as in plain decoding, in words."""
        found = []
        for index, (job, trace) in enumerate(zip(jobs, traces, strict=True)):
            plain = self[job]
            place = f"request {index} (prompt of {len(job.prompt)})"
            if trace.tokens != plain.tokens:
                found.append(f"{place}: tokens {trace.tokens} are not {plain.tokens}")
            rows = list(zip(trace.rows, plain.rows, strict=False))
            odd = [i for i, (ours, theirs) in enumerate(rows) if ours.tobytes() != theirs.tobytes()]
            if odd:
                found.append(f"{place}: logits of outputs {odd} of {len(rows)} differ")
        return found


Style = Literal["mixed", "always", "never"]


class RandomTrees(BaseDrafter):
    """Knows plain decoding's text and hides as much of it as it likes among wrong siblings and cousins.

    Scores are random, so that the right path stands anywhere in the tree. "always" holds as much of the truth as
    the budget allows, "never" none. `fill` adds wrong nodes up to the budget, also beyond the end of the text.
    """

    name = "random-trees"

    def __init__(
        self, plain: PlainRuns, jobs: Sequence[Job], seed: int = 0, style: Style = "mixed", fill: bool = False
    ) -> None:
        self._truth = {(job.prompt, job.seed): [*job.prompt, *plain[job].tokens] for job in jobs}
        self._vocab_size = plain.target.vocab_size
        self._rng = np.random.default_rng(seed)
        self._style, self._fill = style, fill

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        truth = self._truth[tuple(request.tokens[: request.num_prompt_tokens]), request.seed]
        ahead = truth[len(request.tokens) :]
        size = limits.max_nodes if self._fill else int(self._rng.integers(0, limits.max_nodes + 1))
        depth = min(size, len(ahead)) if self._style != "never" else 0
        if self._style == "mixed":
            depth = int(self._rng.integers(0, depth + 1))
        wrong = size - depth if self._fill or self._style != "always" else 0
        return self._tree(ahead, depth, wrong)

    def _tree(self, ahead: list[int], depth: int, wrong: int) -> DraftTree:
        builder = TreeBuilder(self.name)
        path = [-1]
        for is_right in self._rng.permutation([True] * depth + [False] * wrong):
            if is_right:
                path.append(builder.add(path[-1], ahead[len(path) - 1], float(self._rng.random()), 0))
            else:
                self._add_wrong(builder, dict(zip(path, ahead, strict=False)))
        return builder.build()

    def _add_wrong(self, builder: TreeBuilder, right: dict[int, int]) -> None:
        size = len(builder)
        while len(builder) == size:
            parent, token = (int(self._rng.integers(low, high)) for low, high in ((-1, size), (0, self._vocab_size)))
            if token != right.get(parent):
                builder.add(parent, token, float(self._rng.random()), 0)
