"""A plan goes to JSON and comes back; what is no certificate is refused in one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from paceline.certify.bytes import comparisons, group_of, least_coverage
from paceline.certify.plan import CertifyPlan, Sizes, cases_for, plan_from, read_certificate
from paceline.certify.ways import ways_for
from paceline.errors import ConfigError

PLAN = CertifyPlan("here", "auto", "cpu", ("suffix:min_match=2",), ("a <b>", "c"), 20, 7, 3.5, Sizes(11, 2))
REST = {
    "format": 1,
    "verdict": "PASS",
    "model": {"numerics": {"path": "x"}, "files": {}},
    "provenance": {"versions": {}},
    "bytes": {"fingerprint": "", "total": {"decisions": 1}},
}


def test_a_plan_survives_json():
    assert plan_from(json.loads(json.dumps(REST | {"plan": PLAN.as_dict()}))) == PLAN


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"format": 2, "plan": PLAN.as_dict()},
        {"format": 1},
        REST,
        {"format": 1, "plan": PLAN.as_dict()},
        REST | {"plan": PLAN.as_dict() | {"sizes": None}},
        REST | {"plan": PLAN.as_dict() | {"seconds": "long"}},
        REST | {"plan": PLAN.as_dict() | {"prompts": [3]}},
        REST | {"plan": PLAN.as_dict() | {"more": 1}},
    ],
)
def test_what_holds_no_plan_is_refused(found: dict):
    with pytest.raises(ConfigError):
        plan_from(found)


@pytest.mark.parametrize("text", ["", "[]", "{", "<html></html>", "\u2028"])
def test_what_is_no_certificate_is_refused(text: str, tmp_path: Path):
    file = tmp_path / "certificate.html"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"certificate\.html"):
        read_certificate(file)


@pytest.mark.parametrize("wrong", [{"max_tokens": 7}, {"seconds": 0.0}, {"prompts": ()}, {"prompts": ("a", "")}])
def test_a_plan_of_nothing_is_refused(wrong: dict):
    with pytest.raises(ConfigError, match="allowed"):
        CertifyPlan(**{"model": "m", "dtype": "auto", "device": "cpu", "drafters": (), "prompts": ("a",)} | wrong)


@pytest.mark.parametrize("num_prompts", [1, 2, 3, 7])
def test_a_round_has_distinct_prompts_the_last_of_them_long(num_prompts: int):
    prompts = [tuple(range(i, i + 11 + i)) for i in range(num_prompts)]
    for number in range(4):
        group = group_of(prompts, number)
        assert len(set(group)) == len(group)
        assert len(group[-1]) >= 150
    assert group_of([tuple(range(400))], 0) == (tuple(range(400)),)


@pytest.mark.parametrize(
    "drafters", [[], ["suffix"], ["suffix", "recycle", "history", "model", "grammar", "logitspec"]]
)
def test_the_least_coverage_has_every_way_and_every_case_and_the_order_is_fixed(drafters: list[str]):
    prompts = [tuple(range(i, i + 9)) for i in range(5)]
    cases = cases_for(300, prompts)
    ways = ways_for(drafters, cases, True)
    count = len(least_coverage(ways, cases))
    assert count <= max(len(ways), len(cases)) + 2
    first = list(itertools.islice(comparisons(ways, cases, prompts, 3), count))
    assert {one.case.name for one in first} == {case.name for case in cases}
    assert {one.way.name for one in first} == {way.name for way in ways}
    again = itertools.islice(comparisons(ways, cases, prompts, 3), 200)
    assert [one.case.name for one in again] == [
        one.case.name for one in itertools.islice(comparisons(ways, cases, prompts, 3), 200)
    ]


def test_a_round_compares_every_way_in_every_case():
    prompts = [tuple(range(i, i + 9)) for i in range(5)]
    cases = cases_for(300, prompts)
    ways = ways_for(["suffix", "recycle"], cases, True)
    whole = itertools.takewhile(lambda one: one.round == 0, comparisons(ways, cases, prompts, 0))
    seen = [(one.way.name, one.case.name) for one in whole]
    assert set(seen) == {(way.name, case.name) for way in ways for case in cases if way.applies_to(case)}
