"""`benchmarks/plot.py`: what the commands write is shown again; what they never wrote is refused in a sentence."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from plot import app as plot_app
from plots.charts import Band, Bars, Lines, Mark, Series
from plots.figure import save
from plots.text import draw
from plots.views import VIEWS
from typer.testing import CliRunner

from paceline.bench.cli import app
from paceline.errors import ConfigError

Plot = Callable[..., Result]
PACER = ("--prompts", "1", "--max-tokens", "5", "--budgets", "3", "--repeats", "2")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def written(tiny: str, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One result of each kind, as its command writes it."""
    folder = tmp_path_factory.mktemp("results")
    commands = {
        "step": ["step", tiny, "--rows", "1,3,64", "--context", "70", "--repeats", "3"],
        "decode": ["decode", "--model", tiny, "--prompts", prompts, "--max-tokens", "6", "--budgets", "3"],
        "pacer": ["pacer", "--model", tiny, "--tasks", "story,noise", *PACER],
        "doctor": ["doctor", "--model", tiny, "--tasks", "story,noise", "--prompts", "1", "--max-tokens", "5"],
    }
    for kind, command in commands.items():
        done = CliRunner().invoke(app, [*command, "--json", str(folder / kind)])
        assert done.exit_code == 0, done.output
    return {kind: json.loads((folder / kind).read_text()) for kind in commands}


@pytest.fixture
def plot() -> Plot:
    """The command in this process."""
    return lambda *arguments: CliRunner().invoke(plot_app, [str(a) for a in arguments])


@pytest.fixture
def result(written: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A file with a result, changed if so wished."""

    def make(kind: str, change: Callable[[Any], Any] = lambda content: None, name: str = "one.json") -> Path:
        content = copy.deepcopy(written[kind])
        change(content)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return make


def test_every_kind_of_result_can_be_shown(written: dict[str, Any]) -> None:
    assert written.keys() == VIEWS.keys()
    assert all(content["kind"] == kind for kind, content in written.items())


@pytest.mark.parametrize("kind", sorted(VIEWS))
@pytest.mark.parametrize("form", ["png", "SVG"])
def test_one_result_becomes_tables_and_plots(plot: Plot, result: Any, kind: str, form: str, tmp_path: Path) -> None:
    out = tmp_path / f"plot.{form}"
    done = plot(result(kind), "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Results")
    if form == "png":
        assert out.read_bytes().startswith(PNG)
    else:
        assert ElementTree.parse(out).getroot().tag.endswith("svg")


def test_a_step_is_drawn_by_rows(plot: Plot, result: Any) -> None:
    output = plot(result("step")).output
    assert "float32, context 70" in output
    for words in ("Paceline ms", "● Paceline", "▲ transformers", "floor", "Paceline's time over that of others"):
        assert words in output
    assert "llama.cpp" not in output


def test_others_that_took_part_are_drawn_too(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        for row in content["rows"]:
            row["others"] = {"llama.cpp": [0.003, 0.004, 0.005]}

    output = plot(result("step", change)).output
    for words in ("llama.cpp ms", "■ llama.cpp", "4.00"):
        assert words in output
    both = plot(result("step", change), result("step", name="without.json")).output
    assert "\nllama.cpp: " in both
    assert "Paceline's time over that of llama.cpp" in both


def test_a_decode_is_drawn_by_contender_and_by_category(plot: Plot, result: Any) -> None:
    output = plot(result("decode")).output
    for words in (
        "paceline suffix, budget 3",
        "story",
        "list",
        "least",
        "the same bytes in every output",
        "α",
        "Noise",
    ):
        assert words in output
    assert "Warning" not in output


def test_a_pacer_is_drawn_by_task_beside_the_best_fixed(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        content["same_bytes"] = False
        story = content["summary"]["tasks"]["story"]
        story |= {"fixed": {"plain": 1.0, "near 3": 1.75, "far 7": 1.25}, "decoding": 2.5}
        story["pacer"] = {"value": 2.25, "low": 2.0, "high": 2.375}

    output = plot(result("pacer", change)).output
    assert "2.25 (2.00 to 2.38)" in output
    [line] = [line for line in output.splitlines() if "near 3" in line]
    assert "1.75" in line
    assert "far 7" not in output
    assert "Warning: outputs were not the bytes of plain decoding" in output
    twice = plot(result("pacer", name="a.json"), result("pacer", name="b.json")).output
    assert "The pacer over plain decoding" in twice


def test_a_doctor_is_drawn_with_what_was_predicted_and_what_was_measured(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        predicted = {"value": 2.25, "low": 2.0, "high": 2.5}
        figures = [
            {"task": task, "name": "speed-up", "predicted": predicted, "measured": measured, "holds": measured < 2.5}
            for task, measured in (("story", 2.125), ("noise", 3.5))
        ]
        content |= {"figures": figures, "discarded": figures}

    output = plot(result("doctor", change)).output
    assert "2.25 (2.00 to 2.50) · 2.12 " in output
    assert "2.25 (2.00 to 2.50) · 3.50 !" in output
    assert "1 of 2 intervals hold" in output
    assert "2 figures were left out" in output
    assert "▲ measured" in output


def test_outputs_that_differ_are_shouted(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        content["runs"][0] |= {"same_bytes": False, "mismatches": [{}, {}]}

    assert "NOT THE SAME BYTES: 2" in plot(result("decode", change)).output


@pytest.mark.parametrize("kind", ["step", "decode"])
def test_several_results_stand_side_by_side_under_their_names(
    plot: Plot, result: Any, kind: str, tmp_path: Path
) -> None:
    files = [result(kind, name="before.json"), result(kind, name="after.json"), result(kind, name="b/after.json")]
    out = tmp_path / "plot.svg"
    done = plot(*files, "--out", out)
    assert done.exit_code == 0, done.output
    drawn = "".join(ElementTree.parse(out).getroot().itertext())
    for name in ("before", "after", "after 2"):
        assert name in drawn
        assert name in done.output
    assert "Warning" not in done.output


def test_another_machine_or_version_is_warned_of(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        content["provenance"]["threads"] = 64
        content["provenance"]["versions"]["torch"] = "9.9"
        content["provenance"]["commit"] = "0" * 40

    output = plot(result("step"), result("step", change, "two.json")).output
    warnings = [line for line in output.splitlines() if line.startswith("Warning")]
    assert len(warnings) == 2
    assert any("threads" in line and "two: 64" in line for line in warnings)
    assert any("torch" in line and "two: 9.9" in line for line in warnings)


def test_another_measurement_is_warned_of(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        content["runs"][0]["plan"]["max_tokens"] = 7
        content["runs"][0]["prompt_set"]["digest"] = "other"

    output = plot(result("decode"), result("decode", change, "two.json")).output
    assert "differ in their tokens per output: 6, 7" in output
    assert "differ in their prompts" in output


def test_runs_of_different_models_are_not_mixed(plot: Plot, result: Any) -> None:
    def change(content: Any) -> None:
        content["runs"][0]["model"] = "another"

    output = plot(result("decode"), result("decode", change, "two.json")).output
    assert output.count("speed-up over plain decoding") == 2


def test_names_are_no_markup_no_mathematics_and_no_commands_to_the_terminal(
    plot: Plot, result: Any, tmp_path: Path
) -> None:
    def change(content: Any) -> None:
        content["runs"][0]["model"] = "[red]$_{x $\x1b[31m\x07" + "y" * 999
        content["provenance"]["command"] = "[/]\x1b]0;title\x07"

    path = result("decode", change, "[bold] $_{.json")
    done = plot(path, "--out", tmp_path / "plot.png")
    assert done.exit_code == 0, done.exception
    assert not {"\x1b", "\x07"} & set(done.output)
    assert "[red]$_{x $" in done.output
    assert "y" * 300 not in done.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot read"),
        ("nonsense", "cannot read"),
        ("[" * 100_000, "cannot read"),
        ("[]", "names no kind"),
        ("{}", "names no kind"),
        ('{"kind": "soup"}', "has the kind 'soup'; allowed: results of paceline bench (step, decode, pacer, doctor)"),
        ('{"kind": ["step"]}', "has the kind"),
        ('{"kind": "step"}', "lacks 'provenance'"),
        ('{"kind": "step", "provenance": 3}', "lacks 'provenance'"),
    ],
)
def test_files_that_are_no_results_are_refused(plot: Plot, content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    error = plot(path).exception
    assert isinstance(error, ConfigError)
    assert words in str(error)


def at(content: Any, path: str, value: Any) -> None:
    """Put a value where a path of keys leads."""
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in above:
        content = content[part]
    content[last] = value


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("step", "rows", []),
        ("step", "rows", 3),
        ("step", "rows/0/rows", 0),
        ("step", "rows/0/rows", "1"),
        ("step", "rows/0/paceline_seconds", [float("nan")]),
        ("step", "rows/0/paceline_seconds", ["1"]),
        ("step", "rows/0/transformers_seconds", [0.0]),
        ("step", "rows/1", {}),
        ("step", "rows/1/others", None),
        ("step", "rows/1/others", {"llama.cpp": "fast"}),
        ("step", "floor_ms", -1.0),
        ("step", "noise", "loud"),
        ("step", "numerics", None),
        ("decode", "runs", []),
        ("decode", "runs/0", None),
        ("decode", "runs/0/contenders", "none"),
        ("decode", "runs/0/noise", 10**400),
        ("decode", "runs/0/best_fixed", "no such"),
        ("decode", "runs/0/contenders/0/over_plain", {}),
        ("decode", "runs/0/contenders/0/over_plain/median", float("inf")),
        ("decode", "runs/0/contenders/0/over_plain/median", True),
        ("decode", "runs/0/contenders/0/over_plain/intervals", {"median": [1, 2]}),
        ("decode", "runs/0/plan", {"temperature": 0}),
        ("pacer", "summary/tasks", {}),
        ("pacer", "summary/tasks", [1]),
        ("pacer", "summary/tasks/story/fixed", {}),
        ("pacer", "summary/tasks/story/pacer", {"value": 1.0}),
        ("pacer", "summary/tasks/noise/decoding", -1.0),
        ("pacer", "summary/mix", None),
        ("decode", "provenance/versions", None),
        ("decode", "provenance/commit", 5),
    ],
)
def test_results_with_something_wrong_inside_are_refused_in_one_sentence(
    plot: Plot, result: Any, kind: str, path: str, value: Any, tmp_path: Path
) -> None:
    done = plot(result(kind, lambda content: at(content, path, value)), "--out", tmp_path / "plot.png")
    if path == "provenance/commit":  # anything at all can be the name of a commit
        assert done.exit_code == 0
        return
    assert isinstance(done.exception, ConfigError), done.exception
    assert "cannot show one" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "plot.png").exists()


def test_two_kinds_at_once_are_refused(plot: Plot, result: Any) -> None:
    error = plot(result("step"), result("decode", name="two.json")).exception
    assert isinstance(error, ConfigError)
    assert "one kind at a time" in str(error)


@pytest.mark.parametrize("name", ["plot.pdf", "plot", "nowhere/plot.png", ".png/plot.svg"])
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(plot: Plot, name: str, tmp_path: Path) -> None:
    error = plot(tmp_path / "none.json", "--out", tmp_path / name).exception
    assert isinstance(error, ConfigError)
    assert "out is" in str(error)


def test_an_output_that_cannot_be_written_is_refused(plot: Plot, result: Any, tmp_path: Path) -> None:
    (tmp_path / "plot.png").mkdir()
    error = plot(result("step"), "--out", tmp_path / "plot.png").exception
    assert isinstance(error, ConfigError)
    assert "cannot write" in str(error)


def test_bars_are_as_long_as_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    marks = [Mark(2.0, 1.5, 2.5, 1.0), None, Mark(1.25), Mark(0.0)]
    draw(Bars("title", "times", ("a", "bb", "c", "d"), [Series("one", marks, 0)], Band(1.25, 0.1, "level")))
    lines = capsys.readouterr().out.splitlines()
    lengths = {line[:2].strip(): line.count("█") for line in lines if "●" in line and "one" not in line}
    assert lengths == {"a": 44, "c": 28, "d": 0}  # of 56 characters for 2.5
    assert "2.00 (1.50 to 2.50), least 1.00" in lines[1]
    assert "┊" in lines[3]


def test_a_line_stands_where_its_figures_are(capsys: pytest.CaptureFixture[str]) -> None:
    series = [Series("up", [Mark(0.0), Mark(5.0), Mark(10.0)], 0), Series("gap", [Mark(10.0), None, Mark(10.0)], 1)]
    draw(Lines("title", "ms", "rows", (1, 4, 16), series))
    grid = [line[11:67] for line in capsys.readouterr().out.splitlines()[1:15]]
    assert (grid[-1][0], grid[0][0], grid[0][55]) == ("●", "▲", "▲")
    assert [row[28] for row in grid].index("●") in (6, 7)


@pytest.mark.parametrize("form", ["png", "svg"])
def test_odd_charts_are_drawn_without_a_warning(form: str, tmp_path: Path) -> None:
    nothing = Series("nothing", [None], 0)
    charts = [
        Bars("one", "x", ("a",), [Series("s", [Mark(0.0, 0.0, 0.0, 0.0)], 0), nothing]),
        Bars("字 " * 60, "x", ("b" * 90,), [Series("n" * 90, [Mark(1e6, None, 2e6)], 9)], Band(1.0, 0.0, "level")),
        Lines("one place", "ms", "rows", (3,), [Series("s", [Mark(2.0)], 0)], Band(1.0, 2.0, "wide")),
    ]
    save(charts, tmp_path / f"plot.{form}")
    assert (tmp_path / f"plot.{form}").stat().st_size > 1000
    for chart in charts:
        draw(chart)


@pytest.mark.parametrize("script", ["plot.py", "goals.py"])
def test_the_scripts_run_where_they_lie(script: str, result: Any) -> None:
    command = [sys.executable, str(BENCHMARKS / script), str(result("decode"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a goal is missed, as well it may be
    assert "plain" in done.stdout


def test_showing_and_judging_load_neither_torch_nor_transformers(result: Any) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r});"
        "from pathlib import Path; import goals; from plots.views import show_files;"
        f"show_files([Path({str(result('decode'))!r})]);"
        "print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_without_matplotlib_the_extra_is_named(
    plot: Plot, result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = plot(result("decode"), "--out", tmp_path / "plot.png").exception
    assert isinstance(error, ConfigError)
    assert "paceline[bench]" in str(error)
    assert plot(result("decode")).exit_code == 0


def test_the_same_results_make_the_same_svg(plot: Plot, result: Any, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot(result("decode"), "--out", tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
