"""A translator is certified as other models are: prompts are sources, and faults in how these are kept are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import paceline
from paceline.certify.bytes import BytesCheck, comparisons
from paceline.certify.faults import FaultBench
from paceline.certify.harness import Harness
from paceline.certify.law import LawCheck
from paceline.certify.plan import CertifyPlan, cases_for
from paceline.certify.reference import ReferenceLaw, ReferenceModel
from paceline.certify.ways import ways_for
from paceline.llm import LLM
from paceline.pacing import FixedPacer
from paceline.text.source import forbidden_ids

PROMPTS = ("Ein Mann fährt Rad.", "Zwei Hunde liegen im Gras, und 17 andere laufen umher, bis es dunkel ist. " * 2)


@pytest.fixture(scope="module")
def prompts(llm: paceline.LLM) -> list[tuple[int, ...]]:
    return [tuple(llm.encode(text)) for text in PROMPTS]


def test_every_way_is_compared_over_sources(llm: paceline.LLM, prompts: list[tuple[int, ...]]):
    """Trees around what a source's output is; whole sources are found in the prefix cache."""
    cases = cases_for(llm.target.vocab_size, prompts)[:2]
    ways = [way for way in ways_for((), cases, False) if way.name in ("random trees, batch", "cached prefix")]
    fresh = LLM.from_target(llm.target, llm.tokenizer, drafters="none", pacer=FixedPacer())
    check = BytesCheck(Harness(fresh, 9), 0)
    found = check.run(comparisons(ways, cases, prompts, 0), lambda result: result.num_comparisons < 4)
    assert found.is_equal
    assert all(way.is_shown_by(found.tallies[way.name, "greedy"]) for way in ways)


def test_greedy_outputs_are_held_against_the_decoder_behind_the_source(
    llm: paceline.LLM, folder: Path, prompts: list[tuple[int, ...]]
):
    cases = [case for case in cases_for(llm.target.vocab_size, prompts) if case.is_greedy]
    reference = ReferenceModel(str(folder), "float32", "cpu")
    fresh = LLM.from_target(llm.target, llm.tokenizer, drafters="none", pacer=FixedPacer())

    def audit(model: ReferenceModel) -> bool:
        check = LawCheck(Harness(fresh, 9), cases, 0, "float32")
        return check.run(prompts, model, lambda result: result.num_rounds < 2).audit.is_right

    assert audit(reference)
    logits = reference.logits
    reference.logits = lambda tokens, count, source=(): logits(tokens, count, source[:-1])  # type: ignore[method-assign]
    assert not audit(reference)


def test_what_the_settings_forbid_has_no_chance(llm: paceline.LLM):
    law = ReferenceLaw({"temperature": 0.0}, (2,), (2,), forbidden_ids(llm.target.generation_config))
    row = np.zeros(llm.target.vocab_size, np.float32)
    assert np.flatnonzero(np.isneginf(law.scores((5,), row))).tolist() == [53]
    assert np.flatnonzero(np.isneginf(law.scores((5, 96), row))).tolist() == [53, 96]


def test_a_source_that_is_known_by_its_beginning_is_found_out(llm: paceline.LLM, prompts: list[tuple[int, ...]]):
    plan = CertifyPlan("unused", "float32", "cpu", (), ("unused",), max_tokens=16)
    bench = FaultBench(llm, plan, cases_for(llm.target.vocab_size, prompts), prompts)
    found = bench.all()
    assert not [name for name in found if "page" in name or "state" in name]
    control = found["a source known by its beginning"]()
    assert (control.is_caught, control.cause) == (True, "state")
