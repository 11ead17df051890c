"""The tools that plant faults pass without one, and find none where none is.

That each fault is found for its own reason is seen in a certificate: test_certificate.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import paceline
from certify.support import fresh
from paceline.certify import attention_faults, faults
from paceline.certify.bytes import BytesCheck, comparisons
from paceline.certify.controls import StaleRow, SteppedLaw
from paceline.certify.faults import FaultBench
from paceline.certify.harness import Harness, Tally
from paceline.certify.law import LawCheck
from paceline.certify.plan import CertifyPlan, cases_for
from paceline.certify.reference import ReferenceModel
from paceline.certify.ways import ways_for
from paceline.drafters import available
from paceline.llm import LLM
from paceline.native.library import library
from paceline.pacing import FixedPacer
from paceline.testing import Recorder

ANY = next(name for name in available() if name in ("suffix", "recycle", "history"))  # one that needs no model


@pytest.fixture(scope="module")
def bench(llm: LLM, prompts: list[tuple[int, ...]]) -> FaultBench:
    plan = CertifyPlan("paceline-tiny", "float32", "cpu", (), ("unused",), max_tokens=16)
    return FaultBench(llm, plan, cases_for(llm.target.vocab_size, prompts), prompts)


def test_the_same_tools_with_nothing_broken_pass(bench: FaultBench, llm: LLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(StaleRow, "commit", lambda stale, request, path: stale.inner.commit(request, path))
    assert bench._bytes(StaleRow(llm.target), max_comparisons=3).is_equal
    monkeypatch.setattr(attention_faults, "_FirstPageForward", attention_faults.ModuleForward)
    assert bench._bytes(
        attention_faults.first_page_target(llm.target, 1500), max_comparisons=1, kind="parting"
    ).total.is_equal


def test_a_fault_that_is_none_is_not_found(bench: FaultBench, monkeypatch: pytest.MonkeyPatch):
    until_different = faults._until_different
    monkeypatch.setattr(faults, "_until_different", lambda most, result: until_different(min(most, 8), result))
    monkeypatch.setattr(faults, "_MOST_ROUNDS", 1)
    monkeypatch.setattr(faults, "ArgmaxFallback", SteppedLaw)
    monkeypatch.setattr(
        faults, "_LAW_FAULTS", {name: (SteppedLaw, what) for name, (_, what) in faults._LAW_FAULTS.items()}
    )
    frozen = bench.all()["penalties frozen over the draft"]()
    assert not frozen.is_caught
    assert "not found in" in frozen.found
    assert not bench.all()["argmax fallback"]().is_caught


class InDtype:
    """A target that says it computes in bfloat16."""

    def __init__(self, inner) -> None:
        self.inner = inner

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def numerics(self) -> dict:
        return self.inner.numerics() | {"dtype": "bfloat16"}


def test_where_the_dtype_hides_slot_order_it_is_planted_in_float32(llm: LLM, prompts, monkeypatch: pytest.MonkeyPatch):
    real, asked = faults.slot_order_target, []

    def hidden_at_first(target, cache_tokens):
        asked.append(target.numerics()["dtype"])
        return target if len(asked) == 1 else real(target, cache_tokens)

    monkeypatch.setattr(faults, "_MOST_HIDDEN", 1)
    monkeypatch.setattr(faults, "slot_order_target", hidden_at_first)
    monkeypatch.setattr(faults, "load_target", lambda model, dtype, device: (llm.target, None))
    plan = CertifyPlan("paceline-tiny", "auto", "cpu", (), ("unused",))
    bench = FaultBench(fresh(llm, InDtype(llm.target)), plan, [], prompts)
    control = bench.all()["attention in slot order"]()
    assert asked == ["bfloat16", "float32"]
    assert control.is_caught
    assert control.dtype == "float32"
    assert "since this dtype hid it" in control.planted


def test_a_wrong_model_is_found_by_the_reference(llm: LLM, prompts):
    """Logits that are another model's, by a little more than rounding."""

    class Bent:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def score(self, work):
            return [
                rows + np.float32(0.01) * np.sin(np.arange(rows.shape[1])).astype(np.float32) * np.abs(rows).max()
                for rows in self.inner.score(work)
            ]

    cases = [case for case in cases_for(llm.target.vocab_size, prompts) if case.is_greedy]
    reference = ReferenceModel("paceline-tiny", "auto", "cpu")
    verdicts = []
    for target in (llm.target, Bent(llm.target)):
        check = LawCheck(Harness(fresh(llm, target), 12), cases, 0, "float32")
        verdicts.append(check.run(prompts, reference, lambda result: not result.num_rounds).audit.is_right)
    assert verdicts == [True, False]


@pytest.mark.skipif(library() is None, reason="no native kernels")
def test_a_quantised_model_is_held_against_what_its_own_blocks_hold(prompts):
    """Blocks of 4 bits are another model than those of 8."""
    with paceline.load(dtype="int8", drafters="none") as llm:
        cases = [case for case in cases_for(llm.target.vocab_size, prompts) if case.is_greedy][:1]
        verdicts = []
        for dtype in ("int8", "int4"):
            reference = ReferenceModel("paceline-tiny", dtype, "cpu")
            assert reference.is_quantized
            check = LawCheck(Harness(fresh(llm), 12), cases, 0, "blocks")
            audit = check.run(prompts[:3], reference, lambda result: not result.num_rounds).audit
            verdicts.append(audit.is_right)
    assert verdicts == [True, False]


def test_an_output_that_ends_early_is_a_difference(llm: LLM, prompts):
    harness = Harness(fresh(llm), 12)
    case = cases_for(llm.target.vocab_size, prompts)[0]
    expected = [harness.plain(prompts[0], case, 0)]
    same = harness.compare([prompts[0]], expected, [], FixedPacer(0), harness.options(case, 0))
    short = harness.compare([prompts[0]], expected, [], FixedPacer(0), harness.options(case, 0) | {"max_tokens": 9})
    longer = harness.compare([prompts[0]], expected, [], FixedPacer(0), harness.options(case, 0) | {"max_tokens": 14})
    assert (same.is_equal, short.is_equal, longer.is_equal) == (True, False, False)
    assert longer.mismatches[0].expected_token is None


def test_every_way_is_equal(llm: LLM, prompts):
    cases = [cases_for(llm.target.vocab_size, prompts)[i] for i in (1, 5, 7)]
    harness = Harness(fresh(llm), 8)
    ways = ways_for([ANY], cases, True)
    total = len([1 for way in ways for case in cases if way.applies_to(case)])
    check = BytesCheck(harness, 5)
    result = check.run(comparisons(ways, cases, prompts, 5), lambda found: found.num_comparisons < total)
    assert result.is_equal
    assert result.divergence is None
    assert all(tally.decisions for tally in result.tallies.values())
    assert len(result.tallies) == total
    assert result.fingerprint != BytesCheck(Harness(fresh(llm), 10), 5).run(iter(()), lambda found: False).fingerprint


def test_nothing_accepted_is_no_comparison(llm: LLM):
    tally = Tally(outputs=1, decisions=4, equal_tokens=4, equal_bits=4)
    assert tally.is_equal
    check = BytesCheck(Harness(fresh(llm), 10), 0)
    check.result.tallies["way", "case"] = tally
    assert not check.result.is_equal
    check.result.tallies["way", "case"] = replace(tally, accepted_draft_tokens=1)
    assert check.result.is_equal


def test_the_recorder_changes_nothing_and_counts_steps(llm: LLM, prompts):
    own = fresh(llm)
    plain = own.generate(list(prompts[0]), max_tokens=9, ignore_eos=True, drafters="none")
    recorder = Recorder(FixedPacer(3))
    recorded = own.generate(list(prompts[0]), max_tokens=9, ignore_eos=True, drafters=[ANY], pacer=recorder)
    assert recorded.token_ids == plain.token_ids == tuple(recorder.traces[0].tokens)
    assert recorder.traces[0].num_steps == recorded.stats.num_steps
