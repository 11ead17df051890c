"""Pacing is certified where it drafts: paced rows that verified nothing are not shown, and faults in them are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from certify.support import fresh
from paceline.bundled import DEFAULT_DRAFT
from paceline.certify.bytes import BytesCheck, BytesResult, comparisons
from paceline.certify.certificate import Certificate, bytes_as_dict, unexercised, unshown
from paceline.certify.control import Control
from paceline.certify.harness import Harness, Plant, Tally
from paceline.certify.page import claim
from paceline.certify.plan import Case, CertifyPlan, cases_for
from paceline.certify.slow_machine import SlowMachinePacer
from paceline.certify.ways import Way, ways_for
from paceline.engine.ports import Budget, Pacer, StepTimes
from paceline.engine.request import Request, StepOutcome
from paceline.engine.tree import EMPTY
from paceline.llm import LLM
from paceline.testing import ScriptedDrafter, ScriptedTarget, WrappedPacer, WrappedTarget

DRAFTERS = ("suffix", "recycle", f"model:path={DEFAULT_DRAFT}")
PACED = ("all, paced", "all, paced batch")


@pytest.fixture(scope="module")
def cases(llm: LLM, prompts: list[tuple[int, ...]]) -> list[Case]:
    return cases_for(llm.target.vocab_size, prompts)


def compared(
    llm: LLM, prompts, cases: Sequence[Case], chosen: Sequence[Way], plant: Plant = lambda pacer: pacer
) -> BytesResult:
    """A whole round of some ways."""
    count = len(chosen) * len(cases)
    check = BytesCheck(Harness(llm, 16, plant), 0)
    return check.run(comparisons(chosen, cases, prompts, 0), lambda result: result.num_comparisons < count)


def paced_ways(cases: Sequence[Case], drafters: Sequence[str] = ()) -> list[Way]:
    return [way for way in ways_for(drafters, cases, False) if way.name in PACED]


def certificate(found: dict) -> Certificate:
    control = Control("a fault", "", "same bytes", True, "")
    plan = CertifyPlan("m", "auto", "cpu", (), ("a",))
    law = {"is_right": True, "audit": {"decisions": 1}}
    return Certificate(plan, {}, {}, found, law, [control], {}, [], {})


def test_pacing_is_exercised_on_the_bundled_pair_by_its_own_drafters(llm: LLM, prompts, cases):
    """Without the random trees: on a slow machine the pacer asks the drafters that a user has, and verifies drafts."""
    harness = Harness(fresh(llm), 24)
    expected = [harness.plain(prompt, cases[0], 0) for prompt in prompts[:3]]
    tally = harness.compare(prompts[:3], expected, DRAFTERS, harness.slow_pacer, harness.options(cases[0], 0))
    assert tally.is_equal
    assert tally.draft_tokens > tally.accepted_draft_tokens > 0
    assert tally.steps < tally.decisions


@pytest.mark.parametrize("drafters", [(), ("suffix",)])
def test_every_paced_cell_is_shown_whatever_the_drafters(llm: LLM, prompts, cases, drafters: tuple[str, ...]):
    chosen = paced_ways(cases, drafters)
    result = compared(fresh(llm), prompts, cases[:6], chosen)
    assert result.is_equal
    found = bytes_as_dict(result, chosen, cases[:6])
    assert all(cell["is_shown"] for cell in found["cells"])
    assert (unshown(found), unexercised(found)) == ([], [])
    assert found["shown_decisions"] == result.total.decisions
    assert certificate(found).verdict == "PASS"


class NeverDrafts(WrappedPacer):
    """Asks everybody and gives nobody a row."""

    def draft(self, requests: Sequence[Request], budget: Budget, ask) -> list:
        return [EMPTY] * len(super().draft(requests, budget, ask))


def in_pacing(kind: Callable[[Pacer], Pacer]) -> Plant:
    """A fault in pacing alone."""
    return lambda pacer: kind(pacer) if isinstance(pacer, SlowMachinePacer) else pacer


def test_a_pacer_that_never_drafts_shows_nothing_and_the_certificate_is_void(llm: LLM, prompts, cases):
    chosen = [way for way in ways_for((), cases, False) if way.name in (*PACED, "random trees")]
    result = compared(fresh(llm), prompts, cases[:2], chosen, in_pacing(NeverDrafts))
    assert result.is_equal  # by the random trees, which are not paced
    found = bytes_as_dict(result, chosen, cases[:2])
    assert unshown(found) == unexercised(found) == list(PACED)
    shown = [cell for cell in found["cells"] if cell["is_shown"]]
    assert {cell["way"] for cell in shown} == {"random trees"}
    assert found["shown_decisions"] == sum(cell["decisions"] for cell in shown)
    made = certificate(found)
    assert made.verdict == "VOID"
    assert "pacing was not exercised" in claim(made.as_dict())
    assert "; ".join(PACED) in claim(made.as_dict())


def test_rows_that_need_not_draft_are_named_and_the_certificate_stands():
    case = Case("greedy", {})
    idle = Way("idle", "", lambda *_: Tally(), True)
    busy = replace(idle, name="busy", is_required=True)
    result = BytesResult({("idle", "greedy"): tally(0), ("busy", "greedy"): tally(3)})
    made = certificate(bytes_as_dict(result, [idle, busy], [case]))
    assert made.verdict == "PASS"
    said = claim(made.as_dict())
    assert said.startswith("In 7 decisions ")  # of 14
    assert said.endswith("Not shown, since what they are about did not happen: idle.")


def tally(num_drafts: int) -> Tally:
    return Tally(1, 7, 7, 7, steps=7, draft_tokens=num_drafts, accepted_draft_tokens=min(num_drafts, 1))


def test_a_way_that_was_never_run_is_not_shown():
    way = Way("w", "", lambda *_: Tally(), True, is_required=True)
    assert unexercised(bytes_as_dict(BytesResult(), [way], [])) == ["w"]


def test_rows_about_the_prefix_cache_are_shown_by_what_was_found_in_it(cases):
    by_name = {way.name: way for way in ways_for((), cases, False)}
    for name in ("cached prefix", "parting prefixes"):
        assert by_name[name].is_shown_by(Tally(cached_tokens=1))
        assert not by_name[name].is_shown_by(Tally(draft_tokens=1))
    assert not by_name["samples"].is_shown_by(Tally(cached_tokens=1))


class DropsAToken(WrappedPacer):
    """Loses the last token that a step with drafts has emitted."""

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        super().observe(outcomes, times)
        for outcome in outcomes:
            if outcome.num_accepted_drafts and outcome.request.finish_reason is None:
                outcome.request.tokens.pop()


class DropsARow(WrappedTarget):
    """Keeps another row in place of the last accepted one: on deep paths alone, which only a pacer's trees have."""

    def commit(self, request: Request, path: Sequence[int]) -> None:
        super().commit(request, [*path[:-1], path[-2]] if len(path) > 2 else path)


def test_a_token_dropped_by_a_pacer_is_found(llm: LLM, prompts, cases):
    result = compared(fresh(llm), prompts, cases[:2], paced_ways(cases), in_pacing(DropsAToken))
    assert not result.is_equal
    assert result.divergence is not None


def test_a_cached_row_dropped_in_paced_steps_is_found(llm: LLM, prompts, cases):
    result = compared(fresh(llm, DropsARow(llm.target)), prompts, cases[:2], paced_ways(cases))
    assert not result.is_equal
    assert result.divergence is not None
    assert result.divergence.cause == "state"


def test_what_the_slow_pacer_learns_does_not_unsettle_it():
    """After hundreds of steps that took no time at all, a drafter that is always right is still asked at every step."""
    target = ScriptedTarget(lambda tokens: np.eye(64)[len(tokens) * 7 % 50], vocab_size=64)
    drafter = ScriptedDrafter.perfect(target)
    pacer = SlowMachinePacer(target)
    with LLM.from_target(target, drafters=[drafter], pacer=pacer) as llm:
        outputs = [llm.generate(list(range(9)), max_tokens=60, ignore_eos=True, tenant=str(i)) for i in range(12)]
    assert outputs[-1].stats.num_draft_tokens > 0
    assert outputs[-1].stats.mean_acceptance_length >= outputs[0].stats.mean_acceptance_length > 3.0
