from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paceline import LLM
from paceline.bundled import DEFAULT_DRAFT
from paceline.doctor.costs import ForwardPace
from paceline.doctor.diagnosis import CHECKS, Finding, diagnose
from paceline.doctor.facts import DrafterFacts, DraftModel, Facts, MachineLoad, draft_model, template_words
from paceline.doctor.head_check import HeadFacts
from paceline.doctor.heads import HeadForecast
from paceline.doctor.prediction import Interval
from paceline.doctor.questions import Question, read_questions
from paceline.errors import ConfigError

HEALTHY = Facts(
    path="native-avx2",
    dtype="bfloat16",
    device="cpu",
    threads=4,
    cores=4,
    row_seconds={1: 1.0, 8: 2.0},
    host_share=0.1,
    longest=500,
    draft=DraftModel("small", 1000),
    drafters={"suffix": DrafterFacts(80, 200, 90, 0.1)},
    template_words=("<|user|>",),
    num_prompts=3,
    num_templated=3,
    load=MachineLoad(0.1, ForwardPace(0.005, 0.004)),
)
CASES = {
    "vocabulary": (replace(HEALTHY, draft=DraftModel("small", None, "another vocabulary")), "another vocabulary"),
    "never_accepted": (replace(HEALTHY, drafters={"suffix": DrafterFacts(50, 0, 0, 0.1)}), "suffix"),
    "template": (replace(HEALTHY, num_templated=1), "2 of 3 prompts"),
    "quantisation": (replace(HEALTHY, quantisation="gptq"), "gptq"),
    "draft_context": (replace(HEALTHY, longest=1001), "1001 tokens"),
    "threads": (replace(HEALTHY, threads=3), "OMP_NUM_THREADS=4"),
    "busy": (replace(HEALTHY, load=MachineLoad(1.26, ForwardPace(0.0084, 0.004))), "took 1.3 of 4 processors, and a "),
    "prepacking": (replace(HEALTHY, path="stock", dtype="float32"), "C compiler"),
    "stale_head": (replace(HEALTHY, head=HeadFacts("block", 2.0, 3.5)), "trained for other text"),
    "missing_head": (
        replace(HEALTHY, forecast=HeadForecast(Interval(3.0, 2.8, 3.2), Interval(2.0, 1.9, 2.1), 7)),
        "3.00 (2.80 to 3.20) tokens a step",
    ),
    "bound": (replace(HEALTHY, host_share=0.31), "Overhead-bound: 31%"),
}


def test_a_healthy_model_gets_no_finding() -> None:
    assert diagnose(HEALTHY) == []


def test_a_busy_machine_is_told_in_one_sentence() -> None:
    (finding,) = diagnose(CASES["busy"][0])
    assert finding.severity == "problem"
    assert finding.what.endswith("a forward takes 2.1 times its quickest time (8.4 ms, not 4)")


def test_every_check_has_a_case() -> None:
    assert {check.__name__ for check in CHECKS} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_each_check_finds_its_own_fault_and_says_what_to_change(name: str) -> None:
    facts, words = CASES[name]
    (finding,) = diagnose(facts)
    assert words in str(finding)
    assert finding.change
    assert [bool(check(facts)) for check in CHECKS] == [check.__name__ == name for check in CHECKS]


@pytest.mark.parametrize(
    "facts",
    [
        replace(HEALTHY, drafters={"suffix": DrafterFacts(49, 0, 0, 0.1)}),  # too few to say
        replace(HEALTHY, template_words=(), num_templated=0),
        replace(HEALTHY, quantisation="gptq", draft=None),
        replace(HEALTHY, longest=1001, draft=DraftModel("small")),
        replace(HEALTHY, threads=1, device="cuda:0"),
        replace(HEALTHY, path="stock", device="cuda:0"),
        replace(HEALTHY, row_seconds={1: 1.0}),
    ],
)
def test_what_is_no_fault_is_no_finding(facts: Facts) -> None:
    assert diagnose(facts) == []


@pytest.mark.parametrize(
    ("eight", "words"), [(1.5, "Memory-bound"), (4.5, "Compute-bound: a forward of 8 rows takes 4.5")]
)
def test_rows_say_what_a_forward_waits_for(eight: float, words: str) -> None:
    (finding,) = diagnose(replace(HEALTHY, row_seconds={1: 1.0, 8: eight}))
    assert words in finding.what


def test_problems_come_first() -> None:
    facts = replace(HEALTHY, threads=1, host_share=0.9, row_seconds={1: 1.0, 8: 1.0})
    assert [finding.severity for finding in diagnose(facts)] == ["problem", "advice", "fact"]


def test_a_finding_is_a_few_sentences() -> None:
    assert str(Finding("fact", "So it is", "Because", "")) == "So it is. Because."


def test_a_draft_model_is_known_by_its_configuration() -> None:
    assert draft_model(DEFAULT_DRAFT).max_length == 2048
    assert draft_model("no/such-model-anywhere", "refused") == DraftModel("no/such-model-anywhere", None, "refused")


def test_template_words_are_special_tokens(bundled: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled.tokenizer is not None
    inner = bundled.tokenizer.inner
    template = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}{% endfor %}"
    monkeypatch.setattr(inner, "chat_template", template)
    monkeypatch.setattr(inner, "_special_tokens_map", dict(inner._special_tokens_map, bos_token=None))
    assert template_words(bundled) == ("<|endoftext|>",)
    monkeypatch.setattr(inner, "chat_template", "{{ raise_exception('no') }}")
    assert template_words(bundled) == ()
    monkeypatch.setattr(inner, "chat_template", None)
    assert template_words(bundled) == ()


def test_questions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "output": "c", "category": "d", "sampling": {"seed": 1}}\n')
    assert read_questions(path) == [Question("a"), Question("b", "d", {"seed": 1}, None, "c")]
    assert len(read_questions(None)) >= 20


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "has no prompts"), ("x", "cannot read"), ('{"output": "a"}', "'prompt'"), ('{"prompt": "a", "x": 1}', ": x")],
)
def test_prompts_that_make_no_sense_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_questions(path)
