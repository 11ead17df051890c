"""What every decode mode is tried in: an LLM under a recorder, the plain outputs, and tallies of what was equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paceline.certify.plan import Case
from paceline.certify.slow_machine import SlowMachinePacer
from paceline.drafters import BaseDrafter
from paceline.engine.ports import Pacer, Target
from paceline.engine.request import Drafter, DraftLimits, Request, fresh_tenant
from paceline.engine.tree import DraftTree
from paceline.llm import LLM
from paceline.pacing import FixedPacer
from paceline.streams import Stream
from paceline.testing.recorder import Mismatch, RandomTrees, Recorder, Trace

Ids = tuple[int, ...]
Plant = Callable[[Pacer], Pacer]  # what stands between the recorder and the pacer: a fault, or nothing


@dataclass
class Tally:
    """What one way has shown in one kind of sampling."""

    outputs: int = 0
    decisions: int = 0
    equal_tokens: int = 0
    equal_bits: int = 0
    steps: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    cached_tokens: int = 0  # of prompts, found in the prefix cache
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """True if every token and every bit is that of plain decoding."""
        return self.equal_tokens == self.equal_bits == self.decisions

    def add(self, traces: Sequence[Trace], expected: Sequence[Trace], mismatches: Sequence[Mismatch]) -> None:
        """Take in outputs; one that ends early or late lacks or has decisions that are not equal."""
        self.mismatches += mismatches
        for trace, plain in zip(traces, expected, strict=True):
            self.outputs += 1
            self.decisions += max(len(plain.tokens), len(trace.tokens))
            self.equal_tokens += _num_equal(trace.tokens, plain.tokens)
            self.equal_bits += _num_equal(trace.digests, plain.digests)
            self.steps += trace.num_steps
            self.draft_tokens += trace.num_drafts
            self.accepted_draft_tokens += trace.num_accepted

    def merge(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in ("outputs", "decisions", "equal_tokens", "equal_bits", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.draft_tokens += other.draft_tokens
        self.accepted_draft_tokens += other.accepted_draft_tokens
        self.cached_tokens += other.cached_tokens
        self.mismatches += other.mismatches


def prompt_room(target: Target, max_tokens: int) -> int:
    """Tokens that a prompt may have if its output has so many; of a source, those that are read."""
    return target.max_length - max_tokens if target.reads is None else target.reads.max_length


def _num_equal(ours: Sequence[object], theirs: Sequence[object]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=False))


class TreeDrafter(BaseDrafter):
    """Drafts the random trees that it is given. One for each LLM, which keeps every drafter that it meets."""

    name = "random trees"
    trees: RandomTrees

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """See `BaseDrafter`."""
        return self.trees.grow(request, limits.max_nodes)


class Harness:
    """An LLM under a recorder, and the plain outputs that everything else is compared with, each decoded once.

    Plain outputs find nothing in the prefix cache; all else finds what was decoded in this harness.
    """

    def __init__(self, llm: LLM, max_tokens: int, plant: Plant = lambda pacer: pacer) -> None:
        self.llm = llm
        self.trees = TreeDrafter()
        self.max_tokens = max_tokens
        self.pacer = llm.engine.pacer  # the LLM's own
        self.slow_pacer = SlowMachinePacer(llm.target)
        self._plant = plant
        self._tenant = fresh_tenant()
        self.recorder = Recorder(self.pacer)
        self.plain_traces: dict[tuple[Ids, str, int], Trace] = {}

    def plain(self, prompt: Ids, case: Case, seed: int) -> Trace:
        """The plain output of one prompt, alone."""
        key = (prompt, case.name, seed)
        if key not in self.plain_traces:
            self.pace(FixedPacer(0))
            options = self.options(case, seed) | {"tenant": fresh_tenant()}
            self.generate(list(prompt), drafters="none", **options)
            self.plain_traces[key] = self.recorder.traces[0]
        return self.plain_traces[key]

    def plain_samples(self, prompts: Sequence[Ids], options: Mapping[str, Any]) -> list[Trace]:
        """The plain samples of prompts, decoded one after the other."""
        self.pace(FixedPacer(0))
        scheduler = self.llm.engine.scheduler
        max_running, scheduler.max_running = scheduler.max_running, 1
        try:
            self.generate([list(p) for p in prompts], drafters="none", **{**options, "tenant": fresh_tenant()})
        finally:
            scheduler.max_running = max_running
        return list(self.recorder.traces)

    def compare(
        self,
        prompts: Sequence[Ids],
        expected: Sequence[Trace],
        drafters: Sequence[str | Drafter],
        pacer: Pacer,
        options: Mapping[str, Any],
    ) -> Tally:
        """Decode prompts together and compare."""
        self.pace(pacer, expected)
        outputs = self.generate([list(p) for p in prompts], drafters=list(drafters), **options)
        tally = self.tally(expected)
        tally.cached_tokens = sum(output.stats.num_cached_tokens for output in outputs)
        return tally

    def tally(self, expected: Sequence[Trace]) -> Tally:
        """What the recorder has seen since `pace`."""
        tally = Tally()
        tally.add(self.recorder.traces, expected, self.recorder.mismatches)
        return tally

    def pace(self, pacer: Pacer, expected: Sequence[Trace] = (), keep_rows: bool = False) -> None:
        """Decode under this pacer from now on, and record it."""
        self.recorder.inner = self._plant(pacer)
        self.recorder.restart(expected, keep_rows)

    def generate(self, prompts: Any, **options: Any) -> Any:
        """`LLM.generate`, paced and recorded."""
        return self.llm.generate(prompts, pacer=self.recorder, **options)

    def stream(self, prompt: list[int], **options: Any) -> Stream:
        """`LLM.stream`, paced and recorded."""
        return self.llm.stream(prompt, pacer=self.recorder, **options)

    def options(self, case: Case, seed: int) -> dict[str, Any]:
        """A case's sampling as `generate` takes it; outputs go on after an end of sequence unless it says otherwise."""
        common = {"max_tokens": self.max_tokens, "seed": seed, "ignore_eos": True, "tenant": self._tenant}
        return {**common, **case.sampling}
