"""Two servers compared: fakes that are equal, that part, that draw from another law, that waver and that fail."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.responses import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from openai_fake import OpenAIFake, refusal
from paceline.certify.servers.asking import Chance, Reply
from paceline.certify.servers.greedy import Greedy, greedy_as_dict, margin_at, part, wavering_p
from paceline.certify.servers.sampled import SURE, Samples, TwoSample, all_likeliest
from paceline.cli import app
from paceline.errors import PacelineError

PROMPTS = ["Once upon", "def f(x):", "A list of <b>"]
WORDS = [" one", " two", " three", " four", " a\x1b", " <i>"]
FEW = ("--num-samples", "10")
WEIGHTS = [8, 6, 4, 3, 2, 1]
Say = Callable[[dict[str, Any]], Sequence[str]]


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])


def drawn(body: dict[str, Any], weights: Sequence[float] = WEIGHTS) -> list[str]:
    rng = random.Random(f"{body.get('seed')} {prompt_of(body)}")
    return rng.choices(WORDS, weights, k=body["max_tokens"])


def honest(body: dict[str, Any]) -> list[str]:
    """Greedy where that is asked for, else drawn by the seed."""
    if body["temperature"]:
        return drawn(body)
    rng = random.Random(prompt_of(body))
    return [rng.choice(WORDS) for _ in range(body["max_tokens"])]


def parts_at_five(body: dict[str, Any]) -> list[str]:
    tokens = honest(body)
    if not body["temperature"] and prompt_of(body) == PROMPTS[1]:
        tokens[5:] = [" else"] * len(tokens[5:])
    return tokens


def too_hot(body: dict[str, Any]) -> list[str]:
    return drawn(body, [1] * len(WORDS)) if body["temperature"] else honest(body)


def wavering(body: dict[str, Any]) -> list[str]:
    """Takes no notice of temperature 0."""
    return drawn(body)


def seedless(body: dict[str, Any]) -> list[str]:
    return random.choices(WORDS, WEIGHTS, k=body["max_tokens"]) if body["temperature"] else honest(body)


@pytest.fixture
def compare(tmp_path: Path):
    """Run the command on two fakes: its result, and the certificate if there is one."""
    prompts, out = tmp_path / "prompts.txt", tmp_path / "two.html"
    prompts.write_text("\n\n".join(PROMPTS))

    def compare(baseline: OpenAIFake, candidate: OpenAIFake, *more: str) -> tuple[Result, dict[str, Any]]:
        with baseline, candidate:
            urls = ["--baseline", baseline.url, "--candidate", f"{candidate.url}/v1"]
            sizes = ["--num-samples", "30", "--sample-tokens", "1", "--max-tokens", "12"]
            given = ["certify", *urls, *sizes, "--prompts", str(prompts), "--out", str(out), *more]
            done = CliRunner().invoke(app, given)
        assert done.exit_code in (0, 1), done.exception
        found = json.loads(out.with_suffix(".json").read_text())
        assert f'id="verdict"><b>{found["verdict"]}</b>' in out.read_text()
        assert found["verdict"] in done.stdout
        assert (done.exit_code == 0) == (found["verdict"] == "PASS")
        return done, found

    return compare


def test_equal_servers_pass_with_the_power_stated(compare, monkeypatch, tmp_path: Path) -> None:
    baseline, candidate = OpenAIFake(honest), OpenAIFake(honest)
    monkeypatch.setattr("sys.argv", ["paceline", "certify", "--api-key", "se-cret", "--api-key=se-cret"])
    more = ["--api-key", "se-cret", "--field", "top_k=0"]
    done, found = compare(baseline, candidate, *more)
    assert found["verdict"] == "PASS", done.stdout
    assert "Of 3 greedy texts 3 are the baseline's." in done.stdout
    power = found["sampled"]["test"]["power"]
    assert 0 < power["distance"] <= 0.8
    assert power["chance"] >= SURE
    assert f"total variation distance of {power['distance']:g}" in done.stdout
    assert [control["is_caught"] for control in found["controls"]] == [True] * 3
    assert found["notes"] == []
    assert set(baseline.keys) == set(candidate.keys) == {"Bearer se-cret"}
    page = (tmp_path / "two.html").read_text()
    assert "se-cret" not in page + done.stdout
    assert "A list of <b>" not in page.split("<script")[0]  # escaped
    asked = [body for body in baseline.asked if body["temperature"]]
    assert all(body["top_k"] == 0 for body in asked)
    seeds = Counter(
        body.get("seed") for fake in (baseline, candidate) for body in fake.asked if body["max_tokens"] == 1
    )
    assert max(n for seed, n in seeds.items() if seed is not None) == 1  # no two samples share one


@pytest.mark.parametrize(("endpoint", "path"), [("completions", "completions"), ("chat", "chat/completions")])
def test_a_text_that_parts_is_found_with_its_place_and_margin(compare, endpoint: str, path: str) -> None:
    baseline, candidate = OpenAIFake(honest, margin=0.25), OpenAIFake(parts_at_five, margin=1.5)
    done, found = compare(baseline, candidate, "--endpoint", endpoint, *FEW)
    assert {body["path"] for body in candidate.asked} == {path}
    assert found["verdict"] == "FAIL"
    (parting,) = found["greedy"]["partings"]
    mine = honest({"temperature": 0, "prompt": PROMPTS[1], "max_tokens": 12})
    shared = "".join(mine[:5]) + (" " if mine[5] != " else" else "")
    assert parting["prompt"] == 1
    assert parting["token"] == 5
    assert shared.endswith(parting["before"])
    assert parting["character"] == len(shared)
    assert parting["baseline_margin"] == pytest.approx(0.25)
    assert parting["candidate_margin"] == pytest.approx(1.5)
    assert "prompt 2, character" in done.stdout
    assert not found["sampled"]["is_different"]
    assert "\x1b" not in done.stdout


def test_another_law_is_found_though_greedy_texts_are_equal(compare) -> None:
    _, found = compare(OpenAIFake(honest), OpenAIFake(too_hot))
    assert found["verdict"] == "FAIL"
    assert found["greedy"]["equal"] == 3
    assert found["sampled"]["is_different"]
    assert found["controls"][1]["is_caught"]  # the baseline is not told from itself


def test_a_baseline_that_wavers_allows_no_certificate(compare) -> None:
    done, found = compare(OpenAIFake(wavering), OpenAIFake(wavering), *FEW)
    assert found["verdict"] == "VOID"
    assert found["greedy"]["unstable"] == 3
    assert "The baseline does not honour temperature 0" in done.stdout
    assert "differs from itself on 3 of 3 prompts" in done.stdout


def test_a_server_without_seeds_or_with_temperature_0_alone_is_named(compare) -> None:
    done, found = compare(OpenAIFake(seedless), OpenAIFake(lambda body: honest({**body, "temperature": 0})), *FEW)
    assert found["verdict"] == "FAIL"
    assert "The baseline does not honour seed" in done.stdout
    done, found = compare(*[OpenAIFake(lambda body: honest({**body, "temperature": 0})) for _ in range(2)], *FEW)
    assert found["verdict"] == "VOID"
    assert "temperature 1 is not honoured" in done.stdout


def test_a_server_that_fails_half_of_its_requests_passes_nothing(compare) -> None:
    counts: Counter[str] = Counter()

    def refuse(path: str, body: dict[str, Any]) -> Response | None:
        counts["all"] += 1
        return refusal(500, "half of\nthem", x_should_retry="false") if counts["all"] % 2 == 0 else None

    done, found = compare(OpenAIFake(honest), OpenAIFake(honest, refuse=refuse), *FEW)
    assert found["verdict"] == "VOID"
    assert sum(found["servers"]["candidate"]["failures"].values()) == counts["all"] // 2
    assert "without an answer" in done.stdout
    assert "500: half of them" in done.stdout


def test_what_fails_and_passes_is_asked_again(compare) -> None:
    seen: Counter[str] = Counter()

    def refuse(path: str, body: dict[str, Any]) -> Response | None:
        seen[str(body)] += 1
        return refusal(503, "busy") if not body["temperature"] and seen[str(body)] == 1 else None

    done, found = compare(OpenAIFake(honest), OpenAIFake(honest, refuse=refuse))
    assert found["verdict"] == "PASS", done.stdout
    assert found["servers"]["candidate"]["repeated"] == 7  # with the first request of all
    assert "asked again 7 times" in done.stdout


def test_what_cannot_be_compared_is_an_error_of_the_users(tmp_path: Path) -> None:
    with OpenAIFake(honest, refuse=lambda path, body: refusal(404, "no such model\x1b[2J")) as server:
        place = ["--out", str(tmp_path / "c.html")]
        for given, said in [
            (["--baseline", server.url], "--candidate is missing"),
            (["--baseline", server.url, "--candidate", server.url, "model"], "servers alone"),
            (["--baseline", "nowhere", "--candidate", server.url], "allowed: http://HOST"),
            (["--baseline", server.url, "--candidate", server.url, "--endpoint", "x"], "completions, chat"),
            (["--baseline", server.url, "--candidate", server.url, "--field", "seed=1"], "other fields"),
            (["--baseline", server.url, "--candidate", server.url, *["--model", "m"] * 3], "3 times"),
            (["--baseline", server.url, "--candidate", server.url, "--num-samples", "3"], "at least 10"),
            (["--baseline", server.url, "--candidate", server.url], "the baseline at"),
        ]:
            error = CliRunner().invoke(app, ["certify", *given, *place]).exception
            assert isinstance(error, PacelineError)  # exit code 2 and one line
            assert said in str(error)
            assert "\x1b" not in str(error)
    assert not list(tmp_path.iterdir())


# --- greedy texts


@settings(max_examples=40)
@given(st.text(), st.text(), st.text())
def test_the_place_where_texts_part(shared: str, one: str, other: str) -> None:
    first, second = shared + one, shared + other
    if first != second:
        found = part(0, first, second)
        assert first[: found.character] == second[: found.character]
        assert first[found.character : found.character + 1] != second[found.character : found.character + 1]
        assert first[found.character :].startswith(found.baseline)


@settings(max_examples=40)
@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_the_token_that_a_character_is_in(tokens: list[str], data: st.DataObject) -> None:
    text = "".join(tokens)
    place = data.draw(st.integers(0, len(text) - 1))
    index, margin = margin_at([Chance(token, float(i)) for i, token in enumerate(tokens)], text, place)
    assert index is not None
    assert len("".join(tokens[:index])) <= place < len("".join(tokens[: index + 1]))
    assert margin == index
    assert margin_at([Chance("other", 1.0)], text + "x", place) == (None, None)


def greedy(baseline: str, candidate: str) -> Greedy:
    replies = {name: Reply(name, "length") for name in (*baseline, *candidate)}
    return Greedy(0, (replies[baseline[0]], replies[baseline[1]]), (replies[candidate[0]], replies[candidate[1]]))


def test_a_wavering_baseline_is_told_from_a_candidate_that_differs_oftener() -> None:
    alike = [greedy("aa", "aa")] * 9 + [greedy("ab", "aa")] * 2 + [greedy("aa", "bb")]
    worse = [greedy("aa", "bb")] * 15 + [greedy("ab", "bb")]
    assert wavering_p(alike) == pytest.approx(7 / 8)
    assert wavering_p(worse) == pytest.approx(2**-15)
    assert not greedy_as_dict(alike, [])["is_different"]
    assert greedy_as_dict(worse, [])["is_different"]
    assert greedy_as_dict([greedy("aa", "aa"), greedy("aa", "ab")], [])["is_different"]  # the second time


# --- the test of samples


def texts(rng: np.random.Generator, law: Sequence[float], count: int) -> list[str]:
    return [f" w{i}" for i in rng.choice(len(law), count, p=np.array(law))]


def laws(rng: np.random.Generator, prompts: int) -> list[np.ndarray[Any, Any]]:
    return [rng.dirichlet(np.full(9, 0.7)) for _ in range(prompts)]


def test_equal_laws_are_rarely_called_different() -> None:
    rng = np.random.default_rng(5)
    found = []
    for seed in range(60):
        drawn = [Samples(texts(rng, law, 40), texts(rng, law, 20)) for law in laws(rng, 2)]
        test = TwoSample(drawn, seed)
        found.append((test.p_sum, test.p_max))
    assert not [pair for pair in found if min(pair) <= 0.0005]
    for p_values in np.array(found).T:
        assert 0.25 < p_values.mean() < 0.75  # a uniform one's mean is 0.5, with a deviation of 0.04


def test_the_stated_power_is_had() -> None:
    """A shift of the stated size towards the likeliest text is found about as often as is stated."""
    rng = np.random.default_rng(6)
    own = laws(rng, 4)
    power = TwoSample([Samples(texts(rng, law, 80), texts(rng, law, 40)) for law in own], 0).power()
    assert power.distance is not None
    hits = 0
    for seed in range(20):
        pairs = []
        for law in own:
            aim = np.eye(law.size)[law.argmax()]
            share = min(power.distance / (1 - law.max()), 1.0)
            pairs.append(Samples(texts(rng, law, 80), texts(rng, (1 - share) * law + share * aim, 40)))
        hits += TwoSample(pairs, seed).is_different
    assert hits >= 13  # of 20 at 0.9; with 0.65 instead half of the runs would have fewer


def test_a_shift_in_one_prompt_alone_is_found_there() -> None:
    rng = np.random.default_rng(7)
    own = laws(rng, 8)
    pairs = [Samples(texts(rng, law, 80), texts(rng, law, 40)) for law in own]
    pairs[5] = Samples(pairs[5].baseline, [" other"] * 20 + list(pairs[5].candidate[:20]))
    test = TwoSample(pairs, 0)
    assert test.is_different
    assert test.worst == 5
    assert test.p_max <= 0.0005


def test_texts_that_are_all_alike_show_no_law_and_have_no_power() -> None:
    test = TwoSample([Samples(["a"] * 20, ["a"] * 10)], 0)
    assert (test.p_sum, test.p_max, test.num_kinds) == (1.0, 1.0, [1])
    assert test.power().distance is None
    assert all_likeliest(["b", "a", "a", "c"]) == ["a"] * 4
