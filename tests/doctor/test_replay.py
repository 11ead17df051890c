"""A recording says again what the target said, and the replay's time is the cost table's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paceline import LLM
from paceline.doctor.costs import MeasuredCosts, measured_costs
from paceline.doctor.questions import Question
from paceline.doctor.recording import RecordedOutput, record
from paceline.doctor.replay import ReplayClock, Replayer
from paceline.doctor.visit import examine, num_units
from paceline.drafters import BaseDrafter
from paceline.drafters.base import automatic
from paceline.engine.request import DraftLimits, Environment, Request
from paceline.engine.tree import DraftTree
from paceline.errors import RequestError
from paceline.pacing import ForwardCost
from paceline.testing import ScriptedTarget, chain

PROMPT = "Once upon a time, there was a small train."
TABLE = {count: ForwardCost(1.0 + count / 64, 0.0) for count in (1, 2, 4, 8, 16, 32, 64)}
SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8, "seed": 5},
    {"temperature": 50.0, "top_k": 64, "seed": 1, "ignore_eos": True},
    {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.3, "seed": 2},
    {"regex": "(abc|xyz)+ [0-9]{3}", "temperature": 1.0, "seed": 3},
]


class Foreteller(BaseDrafter):
    """Proposes what a recording goes on to say, and a wrong token beside it."""

    name = "foreteller"

    def __init__(self, recording: RecordedOutput) -> None:
        self._tokens = recording.tokens

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        rest = self._tokens[request.num_output_tokens :][: max(min(limits.max_nodes - 1, limits.max_depth), 0)]
        if not rest:
            return DraftTree()
        line = chain(rest, self.name)
        wrong = (rest[0] + 1) % 4096
        return DraftTree(
            (*line.tokens, wrong), (*line.parents, -1), (*line.scores[:-1], 0.9, 0.1), (*line.sources, self.name)
        )


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_recording_says_the_same_again(bundled: LLM, sampling: dict[str, Any]) -> None:
    recording = record(bundled, Question(PROMPT, sampling=sampling), 30)
    plain = bundled.generate(PROMPT, drafters="none", max_tokens=30, **({"seed": 0} | sampling))
    assert recording.tokens == plain.token_ids
    assert len(recording.rows) == len(recording.tokens)
    with Replayer(bundled, [recording], TABLE, ["suffix", "recycle"]) as replayer:
        assert replayer.plain(0, lambda rows, context: 1.0).stats.num_steps == len(recording.tokens)
        for turn in range(3):
            replayed = replayer.paced(0, lambda rows, context: 1.0, str(turn))  # asserts the tokens
            assert replayed.stats.num_emitted_tokens == len(recording.tokens)


def test_the_pacer_is_left_as_it_was(bundled: LLM) -> None:
    pacer = bundled.engine.pacer
    record(bundled, Question(PROMPT), 3)
    assert bundled.engine.pacer is pacer


@pytest.mark.parametrize("length", [1, 2, 64, 65, 131])
def test_a_given_output_is_read_in_few_forwards(bundled: LLM, length: int) -> None:
    tokens = tuple(int(t) for t in np.random.default_rng(length).integers(300, 4000, length))
    text = bundled.tokenizer.decode(tokens) if bundled.tokenizer else ""
    recording = record(bundled, Question(PROMPT, output=text), 5)
    assert bundled.tokenizer is not None
    assert bundled.tokenizer.decode([*recording.ids, *recording.tokens]) == PROMPT + text
    assert len(recording.rows) == len(recording.tokens)
    with Replayer(bundled, [recording], TABLE, ["suffix"]) as replayer:
        assert replayer.plain(0, lambda rows, context: 1.0).stats.num_emitted_tokens == len(recording.tokens)


def test_a_given_output_is_thought_of_as_it_is_when_it_is_decoded(bundled: LLM) -> None:
    assert bundled.tokenizer is not None
    never = {bundled.tokenizer.inner.eos_token_id: -1e3}  # it has no text
    decoded = record(bundled, Question(PROMPT, sampling={"logit_bias": never}), 70)
    read = record(bundled, Question(PROMPT, output=bundled.tokenizer.decode(decoded.tokens)), 5)
    assert read.tokens == decoded.tokens
    for token, mine, own in zip(read.tokens, read.rows, decoded.rows, strict=True):
        assert mine.tokens[0] == token  # by the least there is, where the model wanted to end
        known = dict(zip(own.tokens.tolist(), own.logits.tolist(), strict=True))
        found = dict(zip(mine.tokens.tolist(), mine.logits.tolist(), strict=True))
        assert found.keys() == known.keys()
        assert all(abs(found[other] - known[other]) < 1e-5 for other in known if other != token)


def test_an_empty_prompt_is_refused(bundled: LLM) -> None:
    with pytest.raises(RequestError, match="empty"):
        record(bundled, Question("", output="x"), 5)


def test_time_is_what_the_table_says(bundled: LLM) -> None:
    recording = record(bundled, Question(PROMPT, sampling={"ignore_eos": True}), 24)
    cost = lambda rows, context: 10.0 * rows + context / 1000  # noqa: E731
    with Replayer(bundled, [recording], TABLE, []) as replayer:
        plain = replayer.plain(0, cost)
    contexts = range(len(recording.ids), len(recording.ids) + 24)
    assert plain.forwards == tuple((1, context) for context in contexts)
    expected = 240.0 + sum(contexts) / 1000
    assert plain.stats.forward_seconds == pytest.approx(expected, abs=0.05)
    assert 0.0 < plain.host_seconds < 5.0
    assert plain.seconds(cost) == pytest.approx(expected, abs=5.0)
    assert plain.seconds(lambda rows, context: 0.0) == plain.host_seconds


def test_drafts_that_are_right_save_steps(bundled: LLM) -> None:
    recording = record(bundled, Question(PROMPT, sampling={"ignore_eos": True}), 60)
    with Replayer(bundled, [recording], TABLE, [Foreteller(recording)]) as replayer:  # type: ignore[list-item]
        for turn in range(4):
            replayed = replayer.paced(0, lambda rows, context: TABLE[64].base, str(turn))
    assert replayed.stats.num_steps < 20
    assert max(rows for rows, _ in replayed.forwards) > 8
    assert replayed.seconds(lambda rows, context: 1.0) < 25.0


def test_a_clock_that_is_told_how_long_things_take() -> None:
    clock = ReplayClock()
    before = clock()
    with clock.instead(100.0):
        sum(range(100_000))
    assert 100.0 <= clock() - before < 101.0


def test_costs_are_timed_in_rounds() -> None:
    target = ScriptedTarget(lambda history: np.zeros(3), 3)
    table = {1: ForwardCost(1e-3, 1e-6), 2: ForwardCost(2e-3, 0.0), 3: ForwardCost(3e-3, 0.0)}
    costs = measured_costs(target, table, [5, 7, 900])
    assert costs.counts == (1, 2)
    assert costs.scales.shape == (15, 2)
    assert (costs.scales > 0).all()


def test_costs_are_scaled_by_the_median_of_rounds() -> None:
    table = {1: ForwardCost(1.0, 0.01), 4: ForwardCost(2.0, 0.0), 8: ForwardCost(4.0, 0.0), 9: ForwardCost(5.0, 0.0)}
    scales = np.array([[1.0, 3.0], [2.0, 3.0], [9.0, 3.0]])
    costs = MeasuredCosts(table, (1, 8), scales)
    usual = costs.usual()
    assert usual(1, 100) == pytest.approx(2.0 * 2.0)
    assert usual(3, 0) == pytest.approx(3.0 * 2.0)  # padded to 4, timed at 8
    assert usual(30, 0) == pytest.approx(3.0 * 5.0)
    drawn = {round(costs.drawn(np.random.default_rng(seed))(1, 0), 6) for seed in range(50)}
    assert drawn == {1.0, 2.0, 9.0}


def test_a_whole_visit(bundled: LLM) -> None:
    questions = [Question(PROMPT, "a"), Question("One day", "b"), Question(PROMPT, "a", output=" It was late.")]
    done: list[None] = []
    drafters = automatic(Environment(None, 0, "cpu", None))
    visit = examine(bundled, questions, 9, drafters, lambda: done.append(None))
    assert len(done) == num_units(questions)
    assert visit.categories == ["a", "b"]
    both, one = visit.prediction(), visit.prediction("b")
    assert (both.num_prompts, one.num_prompts) == (3, 1)
    assert both.num_tokens > one.num_tokens == 9
    for found in (both, one):
        assert found.speedup.low <= found.speedup.value <= found.speedup.high
        assert found.mean_acceptance_length.value >= 1.0
        assert 0.0 < found.host_share < 1.0
