"""Runs the checks on the faulty engines. A certificate stands only if every one of them is found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from paceline.certify.attention_faults import first_page_target, slot_order_target, target_with
from paceline.certify.betting import FALSE_ALARM
from paceline.certify.bytes import LONG, BytesCheck, BytesResult, comparisons
from paceline.certify.control import Control
from paceline.certify.controls import (
    ArgmaxFallback,
    FaultyPacer,
    FrozenPenalties,
    NoiseAtTheWrongIndex,
    RepeatedPages,
    StaleRow,
    SteppedLaw,
)
from paceline.certify.harness import Harness, Ids, Plant, prompt_room
from paceline.certify.law import LawCheck, LawResult
from paceline.certify.parting import PARTED
from paceline.certify.plan import Case, CertifyPlan
from paceline.certify.source_faults import hasty_target
from paceline.certify.state_faults import ChainedForward, forgotten_states
from paceline.certify.ways import ways_for
from paceline.engine.ports import Target
from paceline.llm import LLM
from paceline.model.hf import HFTarget
from paceline.model.loading import load_target
from paceline.model.prefix import PAGE_SIZE
from paceline.pacing import FixedPacer

_MOST_COMPARISONS = 24  # a fault that shows in none of them is not found
_MOST_HIDDEN = 2  # comparisons before a fault is taken to be hidden by the dtype
_MOST_ROUNDS = 6
_FEWEST_TOKENS, _MAX_TOKENS = 16, 24  # of an output
_LONGEST = 160  # tokens of a prompt
_CACHE = 4 * (PARTED + _MAX_TOKENS + 64)

Tell = Callable[[str], None]
Try = Callable[[], Control]


def run_controls(
    llm: LLM, plan: CertifyPlan, cases: Sequence[Case], prompts: Sequence[Ids], tell: Tell
) -> list[Control]:
    """Each fault planted in turn; `tell` hears of each."""
    bench = FaultBench(llm, plan, cases, prompts)
    found = []
    for name, run in bench.all().items():
        tell(f"negative control: {name}")
        found.append(run())
    return found


class FaultBench:
    """The faults of this model, each behind a function that plants it and runs the check."""

    def __init__(self, llm: LLM, plan: CertifyPlan, cases: Sequence[Case], prompts: Sequence[Ids]) -> None:
        self._llm, self._plan = llm, plan
        self._max_tokens = min(max(plan.max_tokens or _MAX_TOKENS, _FEWEST_TOKENS), _MAX_TOKENS)
        self._cases = [case for case in cases if "regex" not in case.sampling]
        self._telling = _telling_cases(prompts, llm.target.vocab_size)
        self._most_room = prompt_room(llm.target, self._max_tokens)
        self._longest = min(_LONGEST, self._most_room)
        self._prompts = [prompt[-self._longest :] for prompt in prompts]

    def all(self) -> dict[str, Try]:
        """By name; those of pages that are found need prompts of more than so many pages."""
        pool = cast(HFTarget, self._llm.target).decoder.pool
        found: dict[str, Try] = {"attention in slot order": self._slot_order} if pool.layers else {}
        found |= {} if pool.states is None else {"a tree scanned as a chain": self._chained}
        found |= {
            "a stale cache row": self._stale_row,
            "penalties frozen over the draft": partial(self._law_fault, "penalties frozen over the draft"),
            "noise re-used at the wrong index": partial(self._law_fault, "noise re-used at the wrong index"),
            "argmax fallback": self._argmax_fallback,
        }
        if self._llm.target.reads is not None:  # which finds whole sources, and seldom pages of outputs
            return found | ({"a source known by its beginning": self._hasty} if self._most_room > PAGE_SIZE else {})
        if self._longest > 2 * PAGE_SIZE and pool.layers:
            found["a wrong page of the prefix cache"] = self._wrong_page
        if self._longest > 2 * PAGE_SIZE and pool.states is not None:
            found["a forgotten state of the prefix cache"] = self._forgotten
        if self._most_room > 3 * PAGE_SIZE and pool.layers:
            found["a sequence known by its first page"] = self._first_page
        return found

    def _slot_order(self) -> Control:
        """In the model's dtype; where that hides it, in float32 on the same weights."""
        name, planted = "attention in slot order", "masked attention adds up keys in the order of their cache slots"
        target = cast(HFTarget, self._llm.target)
        result = self._bytes(slot_order_target(target, _CACHE), max_comparisons=_MOST_HIDDEN)
        if result.is_equal and target.numerics()["dtype"] != "float32":
            target = load_target(self._plan.model, dtype="float32", device=self._plan.device)[0]
            result = self._bytes(slot_order_target(target, _CACHE))
            planted += "; in float32 on the same weights, since this dtype hid it"
        return _bytes_control(name, planted, result, target)

    def _stale_row(self) -> Control:
        planted = "the cached row of a rejected draft is kept in place of the accepted one beside it"
        result = self._bytes(StaleRow(self._llm.target))
        return _bytes_control("a stale cache row", planted, result, self._llm.target)

    def _wrong_page(self) -> Control:
        planted = "the first page found in the prefix cache is taken for all that were found"
        target = cast(HFTarget, self._llm.target)
        pool = target.decoder.pool
        right, pool.prefixes = pool.prefixes, RepeatedPages(pool.prefixes)
        try:
            result = self._bytes(target, kind="cached prefix")
        finally:
            pool.prefixes = right
        return _bytes_control("a wrong page of the prefix cache", planted, result, target)

    def _chained(self) -> Control:
        name, planted = "a tree scanned as a chain", "each row's state comes of the row before it, not of its parent's"
        target = target_with(ChainedForward, cast(HFTarget, self._llm.target), _CACHE, name)
        return _bytes_control(name, planted, self._bytes(target), target)

    def _forgotten(self) -> Control:
        planted = "the state at the end of a prefix that is found is not restored"
        target = cast(HFTarget, self._llm.target)
        with forgotten_states(target.decoder.pool):
            result = self._bytes(target, kind="cached prefix")
        return _bytes_control("a forgotten state of the prefix cache", planted, result, target)

    def _first_page(self) -> Control:
        planted = "a sequence is known by its first page, which those that begin alike share"
        target = cast(HFTarget, self._llm.target)
        result = self._bytes(first_page_target(target, _CACHE), kind="parting prefixes")
        return _bytes_control("a sequence known by its first page", planted, result, target)

    def _hasty(self) -> Control:
        name, planted = "a source known by its beginning", "a source is known by its first page, as others may be too"
        target = hasty_target(cast(HFTarget, self._llm.target), _CACHE)
        return _bytes_control(name, planted, self._bytes(target, kind="parting prefixes"), target)

    def _law_fault(self, name: str) -> Control:
        kind, planted = _LAW_FAULTS[name]
        result = self._bytes(self._llm.target, partial(FaultyPacer, kind=kind))
        return _bytes_control(name, planted, result, self._llm.target)

    def _argmax_fallback(self) -> Control:
        """Plain and speculative decoding have this fault alike, so that only the reference can show it."""
        harness = self._harness(self._llm.target, partial(FaultyPacer, kind=ArgmaxFallback))
        dtype = self._llm.target.numerics()["dtype"]
        check = LawCheck(harness, self._cases, self._plan.seed, dtype)
        result = check.run(self._prompts, None, _until_unfair)
        p_value = result.as_dict()["p_value"]
        tokens = sum(draws.tokens for draws in result.draws.values())
        found = f"p = {p_value:.1e} after {tokens:,} sampled tokens (refuted at {FALSE_ALARM:g})"
        planted = "the likeliest token is taken at a quarter of all places, whatever was drawn"
        return Control("argmax fallback", planted, "right law", not result.has_fair_draws, found, "law", dtype)

    def _bytes(
        self,
        target: Target,
        plant: Plant = lambda pacer: pacer,
        max_comparisons: int = _MOST_COMPARISONS,
        kind: str = "random trees",
    ) -> BytesResult:
        ways = [way for way in ways_for((), self._telling, False) if way.name.startswith(kind)]
        found = comparisons(ways, self._telling, self._prompts, self._plan.seed, min(LONG, self._longest))
        return BytesCheck(self._harness(target, plant), self._plan.seed).run(
            found, partial(_until_different, max_comparisons)
        )

    def _harness(self, target: Target, plant: Plant) -> Harness:
        llm = LLM.from_target(target, self._llm.tokenizer, drafters="none", pacer=FixedPacer())
        return Harness(llm, self._max_tokens, plant)


_LAW_FAULTS: dict[str, tuple[type[SteppedLaw], str]] = {
    "penalties frozen over the draft": (
        FrozenPenalties,
        "what was generated is counted at the beginning of a step only",
    ),
    "noise re-used at the wrong index": (NoiseAtTheWrongIndex, "all tokens of a step are drawn with its first's noise"),
}


def _telling_cases(prompts: Sequence[Ids], vocab_size: int) -> list[Case]:
    """Kinds of sampling in which each part of the law has much to say, whatever the model.

    A few tokens are so much likelier than the rest that they come again and again, which penalties are about.
    """
    few = list(dict.fromkeys(token for prompt in prompts for token in prompt if token < vocab_size))[:6]
    penalties = {"frequency_penalty": 2.0, "presence_penalty": 2.0, "logit_bias": dict.fromkeys(few, 1000.0)}
    return [
        Case("greedy", {"temperature": 0.0}),
        Case("six tokens, penalised", {"temperature": 1.0, **penalties}),
        Case("temperature 1", {"temperature": 1.0}),
        Case("six tokens, penalised, greedy", {"temperature": 0.0, **penalties}),
    ]


def _until_different(max_comparisons: int, result: BytesResult) -> bool:
    return result.divergence is None and result.num_comparisons < max_comparisons


def _until_unfair(result: LawResult) -> bool:
    return not result.num_rounds or (result.has_fair_draws and result.num_rounds < _MOST_ROUNDS)


def _bytes_control(name: str, planted: str, result: BytesResult, target: Target) -> Control:
    dtype = target.numerics()["dtype"]
    first = result.divergence
    if first is None:
        found = f"not found in {result.total.decisions:,} decisions"
        return Control(name, planted, "same bytes", False, found, "", dtype)
    is_same = first.token == first.expected_token
    what = (
        "the same token from logits" if is_same else f"{first.token_text!r} in place of {first.expected_text!r}, logits"
    )
    found = (
        f"within {result.total.decisions:,} decisions: token {first.index} of an output, {what} "
        f"off by {first.row_difference:.2g}"
    )
    return Control(name, planted, "same bytes", True, found, first.cause, dtype)
