"""`paceline demo` as a newcomer runs it: on a terminal, in a pipe, interrupted, and with a fault planted."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

import paceline
from cli.terminal import Terminal
from paceline.bundled import DEFAULT_DRAFT, bundled_path
from paceline.cli import demo_view, race
from paceline.cli.generate import coloured
from paceline.engine.request import Token
from paceline.pacing import FixedPacer

TARGET, DRAFT = (str(bundled_path(name)) for name in ("paceline-tiny", DEFAULT_DRAFT))
SMALL = ("--model", TARGET, "--max-tokens", "9")
MOVES = re.compile(r"\x1b\[\d*[ABCDHJK]")
COLOURS = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


@pytest.fixture
def run(run):
    """`paceline demo` in this process."""
    return partial(run, "demo")


def test_the_first_command_of_a_newcomer_races_a_model_of_134_million(python: str, bundled: paceline.LLM) -> None:
    command = [python, "-m", "paceline", "demo", "--max-tokens", "6", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same_bytes"] is True
    assert found["is_grown"] is True
    assert found["num_parameters"] == pytest.approx(134e6, rel=0.01)
    assert found["draft_model"] == DEFAULT_DRAFT
    assert found["text"] == bundled.generate(llm_prompt(), max_tokens=6).text  # of the small one


def llm_prompt() -> str:
    """The first of the bundled prompts, which the command continues by default."""
    first = (paceline.bundled.PROMPTS).read_text().splitlines()[0]
    return json.loads(first)["prompt"]


def test_without_a_terminal_it_prints_plain_lines(run) -> None:
    done = run(*SMALL)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{TARGET}: 7 M parameters."
    assert re.match(r"bfloat16 on cpu, \d+ threads; no draft model\.", lines[1])
    assert "each clock counts its own decoding alone" in lines[2]
    assert lines[3] == f"The prompt: {llm_prompt()}"
    assert re.match(r"plain decoding: 9 tokens in \d+\.\d\d s · 1\.00 tokens a step$", lines[-3])
    assert re.match(r"Paceline: 9 tokens in \d+\.\d\d s · \d\.\d\d tokens a step", lines[-2])
    assert re.match(r"Same bytes, (\d+\.\d\d times sooner|but no sooner: \d+\.\d\d times as long)\.", lines[-1])


TWICE = """
import os, sys
from contextlib import suppress
from paceline.cli import main
with suppress(SystemExit):
    main()
print("AND AGAIN", flush=True)
os.environ |= {"COLUMNS": "130", "NO_COLOR": "1"}
main()
"""


def test_on_a_terminal_both_texts_grow(python: str) -> None:
    """One below the other, then, without colours, beside each other."""
    terminal = Terminal("demo", *SMALL, code=TWICE, python=python)
    assert terminal.end() == 0, terminal.seen
    narrow, wide = terminal.seen.split("AND AGAIN")
    for seen, is_wide in ((narrow, False), (wide, True)):
        assert MOVES.search(seen)  # it is drawn again and again
        assert bool(COLOURS.search(seen)) == (not is_wide)
        last = seen[seen.rindex("plain decoding ·") :]  # the last drawing
        assert (" Paceline ·" in last.splitlines()[0]) == is_wide
        assert "9 tokens in" in last
        assert "Same bytes, " in last
        assert "\x1b[?25h" in seen  # the cursor is back


def test_json_is_one_object(run) -> None:
    done = run(*SMALL, "--json", "--temperature", "1", "--seed", "3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same_bytes"] is True
    assert found["is_grown"] is False
    assert (found["seed"], len(found["token_ids"])) == (3, 9)
    assert found["speed_up"] == found["plain_seconds"] / found["paceline_seconds"]
    assert found["num_parameters"] == 6852864
    assert found["mean_acceptance_length"] >= 1


@pytest.mark.parametrize("args", [["Question: What is 2 + 2?\nAnswer:"], ["-"]], ids=["argument", "stdin"])
def test_a_prompt_of_ones_own_is_continued_as_generate_does(run, args: list[str], bundled: paceline.LLM) -> None:
    prompt = "Question: What is 2 + 2?\nAnswer:"
    found = json.loads(run(*args, *SMALL, "--json", stdin=prompt).stdout)
    assert found["text"] == bundled.generate(prompt, max_tokens=9).text


def test_a_prompt_with_the_signs_of_markup_is_shown_as_it_is(run) -> None:
    assert "The prompt: [bold]x[/] [/nothing]" in run("[bold]x[/] [/nothing]", *SMALL).stdout


def test_a_draft_model_of_ones_own_drafts(run) -> None:
    done = run(*SMALL, "--draft-model", DRAFT, "--dtype", "float32", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["draft_model"], found["numerics"]["dtype"], found["same_bytes"]) == (DRAFT, "float32", True)


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_bytes_that_differ_are_an_error(run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    from paceline.engine import engine

    verify = engine.verify

    def gullible(tree, logits, sampler):
        """What a verifier does that believes a draft token, whatever the target says."""
        verdict = verify(tree, logits, sampler)
        drafted = [token for token, parent in zip(tree.tokens, tree.parents, strict=True) if parent == -1]
        if not drafted or verdict.sampled[0].token == drafted[-1]:
            return verdict
        return replace(verdict, path=(), sampled=(replace(verdict.sampled[0], token=drafted[-1]),))

    # It drafts at every step.
    monkeypatch.setattr("paceline.loading.AdaptivePacer", lambda *costs, **options: FixedPacer(7))
    monkeypatch.setattr(engine, "verify", gullible)
    done = run("--model", TARGET, "--draft-model", DRAFT, "--max-tokens", "40", *options)
    assert done.returncode == 1
    assert re.search(r"the outputs differ from token \d+ on: plain decoding has \[\d+\], Paceline \[\d+\]", done.stderr)
    assert "Same bytes" not in done.stdout
    if options:
        assert json.loads(done.stdout)["same_bytes"] is False


def test_outputs_that_end_at_different_places_differ(bundled: paceline.LLM) -> None:
    short, long = (bundled.generate("Once upon a time", max_tokens=count) for count in (5, 8))
    assert race.first_difference(long, long) is None
    assert race.first_difference(short, long) == race.first_difference(long, short) == 5
    assert race.first_difference(short, replace(short, text="")) == 5


@pytest.mark.parametrize(("wanted", "is_cold"), [("loading", True), ("The prompt: ", False)])
def test_ctrl_c_ends_it_cleanly(python: str, wanted: str, is_cold: bool) -> None:
    asked = ("demo", "--model", TARGET, "--max-tokens", "1900", "--temperature", "1")
    terminal = Terminal(*asked, python=sys.executable if is_cold else python)
    terminal.read_until(wanted)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    assert "Same bytes" not in terminal.seen
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")  # the cursor is back


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--size", "7b"], "--size is '7b'; allowed: 134m, 1b"),
        (["--size", "1b", "--model", TARGET], "; allowed: one of them"),
        (["--max-tokens", "0"], "greater than or equal to 1"),
        (["--dtype", "int3"], "dtype is 'int3'; allowed"),
        (["", "--model", TARGET], "the prompt is empty"),
        (["--model", "./nowhere"], "no model in the folder './nowhere'"),
        (["Once " * 3000, "--model", TARGET], "maximum context length is 2048 tokens"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(run, args: list[str], said: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_size_that_does_not_fit_in_memory_is_refused(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.model.numerics.free_memory", lambda device: 4_000_000_000)
    done = run("--size", "1b")
    assert done.returncode == 2
    assert "--size is 1b, which needs 6.1 GB; 4.0 GB are free here; allowed: a smaller --size" in done.stderr


class Clock:
    """Time that passes where a script says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def scripted(clock: Clock, seconds: list[float]):
    """A stream whose tokens take so long each."""
    for index, duration in enumerate(seconds):
        clock.now += duration
        yield Token(index, "x", "target", 0.0, 0.0)


@pytest.mark.parametrize(
    ("slow", "quick"),
    [([0.004] * 90, [0.006, 0.0, 0.0] * 30), ([0.3] * 4, [0.2] * 4), ([0.01] * 3, [0.02] * 11), ([], [0.1])],
)
def test_each_clock_counts_its_own_time_and_both_stay_side_by_side(
    monkeypatch: pytest.MonkeyPatch, slow: list[float], quick: list[float]
) -> None:
    clock = Clock()
    monkeypatch.setattr(race, "time", clock)
    pair = tuple(race.Racer(str(seconds), scripted(clock, seconds)) for seconds in (slow, quick))
    longest = max([*slow, *quick])
    for _ in race.race(pair):
        clock.now += 7.0  # drawing is on no clock
        if not any(racer.is_done for racer in pair):
            assert abs(pair[0].seconds - pair[1].seconds) <= race.TURN + longest + 1e-9
    assert [len(racer.tokens) for racer in pair] == [len(slow), len(quick)]
    assert [racer.seconds for racer in pair] == pytest.approx([sum(slow), sum(quick)])


def test_a_text_longer_than_the_screen_shows_its_end_and_at_last_all_of_it() -> None:
    pair = tuple(race.Racer(name, iter(())) for name in ("plain decoding", "Paceline"))
    for racer in pair:
        racer.tokens = [Token(index, f"word{index} ", "target", 0.0, 0.0) for index in range(500)]
    for width in (80, 130):
        console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, legacy_windows=False)
        shown = console.render_lines(demo_view.panes(pair, console, is_whole=False))
        assert len(shown) <= 24
        texts = ["".join(segment.text for segment in line) for line in shown]
        assert sum(line.count("word499 ") for line in texts) == 2
        assert not any("word0 " in line for line in texts)
        console.print(demo_view.panes(pair, console, is_whole=True))
        assert console.file.getvalue().count("word0 ") == console.file.getvalue().count("word499 ") == 2


def test_tokens_have_the_colours_that_generate_gives_them() -> None:
    pair = tuple(race.Racer(name, iter(())) for name in ("plain decoding", "Paceline"))
    pair[1].tokens = [Token(i, f"t{i}", source, 0.0, 0.0) for i, source in enumerate(["b", "target", "a", "b"])]
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system="standard")
    console.print(demo_view.panes(pair, console, is_whole=True))
    colours: dict[str, str] = {}
    for token in pair[1].tokens:
        styled = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
        styled.print(coloured(token.text, token.source, colours), end="")
        assert styled.file.getvalue() in console.file.getvalue()
    assert len(set(colours.values())) == 2


def test_the_verdict_says_plainly_when_it_is_slower() -> None:
    assert demo_view.verdict(2.0, 1.0) == "Same bytes, 2.00 times sooner."
    assert demo_view.verdict(1.0, 1.25).startswith("Same bytes, but no sooner: 1.25 times as long.")
