"""Peers compete in turns; one that is absent, fails, dies or falls silent is a row that says why. No peer is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from peers import install, process, run, servers, serving
from peers.install import CannotInstallError, python_of, wanted
from peers.measure import Contender, Plan, Prompt, line_up, measure
from peers.process import PeerProcess
from peers.protocol import Target
from peers.recipes import RECIPES, Recipe
from peers.report import table
from peers.results import Run
from peers.run import Record, Settings, compete, prepare
from peers.servers import PeerServer, Site
from peers.targets import checkpoint, draft_checkpoint, made_once
from peers.venue import Venue

from paceline.bench.serve.sweep import Sweep, SweepPlan
from paceline.bench.shapes import MAX_LENGTH
from paceline.errors import ConfigError

BENCHMARKS = Path(run.__file__).parents[1]
HEAD = "import os, sys, time\nfrom peers.protocol import serve\n"

# An adapter that writes down its turns, prints where it may not, and continues the last token upwards.
GOOD = """
def modes(target):
    print("a library is chatty")
    return {name: lambda name=name: lambda turn: decode(name, turn) for name in ("first", "second")}

def decode(name, turn):
    print("very chatty")
    with open(os.environ["TURNS"], "a") as file:
        file.write(f"{__spec__.name} {name} {turn.ids[-1]}\\n")
    return [turn.ids[-1] + i for i in range(turn.max_tokens)]
"""
BROKEN = """
def modes(target):
    return {"absent": lambda: 1 / 0, "failing": lambda: fail, "short": lambda: lambda turn: [1], "fine": lambda: fine}

def fail(turn):
    raise ValueError("head size 8\\nis not there")

def fine(turn):
    return [5] * turn.max_tokens
"""
DYING = """
count = 0

def modes(target):
    return {"only": lambda: decode}

def decode(turn):
    global count
    count += 1
    if count == 4:
        print("out of luck", file=sys.stderr)
        os._exit(3)
    return [5] * turn.max_tokens
"""
SILENT = "def modes(target):\n    return {'only': lambda: lambda turn: time.sleep(60)}\n"
EXPORTING = """
def export(target):
    with open(os.path.join(target.exports, "weights"), "w") as file:
        file.write(target.folder)

def modes(target):
    tokens = [ord(letter) for letter in open(os.path.join(target.exports, "weights")).read()]
    return {"only": lambda: lambda turn: tokens[:turn.max_tokens]}
"""
UNABLE = "def export(target):\n    raise ValueError('not a Llama')\n\ndef modes(target):\n    return {}\n"

Adapters = Callable[..., Venue]


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adapters:
    """A venue whose peers are the sources given, run by this interpreter."""
    package = f"fakes_{abs(hash(tmp_path))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TURNS", str(tmp_path / "turns"))

    def make(**sources: str) -> Venue:
        for name, source in sources.items():
            export = ", export" if "def export" in source else ""
            (folder / f"{name}.py").write_text(f"{HEAD}{source}\nserve(modes, ['pip']{export})\n")
        recipes = {name: Recipe(has_export="def export" in source) for name, source in sources.items()}
        return Venue(tmp_path / "cache", 1, recipes, package, (BENCHMARKS, tmp_path))

    return make


def target(folder: str = "weights", draft: str | None = None) -> Target:
    return Target(folder, draft, "float32", 1, 64, exports="")


PROMPTS = [Prompt("story", (1, 10)), Prompt("copy", (1, 2, 20)), Prompt("copy", (1, 30))]
PLAN = Plan(max_tokens=4, temperature=0.0, repeats=2, rest=0.0)


def rounds(venue: Venue, plan: Plan = PLAN) -> list[Contender]:
    """All contenders of a venue after a whole measurement."""
    with venue.enter(venue.install(list(venue.recipes)), target()) as peers:
        contenders = line_up(peers)
        assert len(list(measure(contenders, PROMPTS, plan))) == plan.repeats + 1
    return contenders


def test_one_peer_follows_another_and_one_round_the_last(adapters: Adapters, tmp_path: Path) -> None:
    contenders = rounds(adapters(one=GOOD, two=GOOD))
    turns = [line.split()[0].split(".")[-1] + " " + " ".join(line.split()[1:]) for line in open_turns(tmp_path)]
    order = ["one first", "two first", "one second", "two second"]
    assert turns[:8] == [f"{name} {last}" for last in (20, 10) for name in order]  # untimed: the longest, the shortest
    assert turns[8:] == [f"{name} {last}" for _ in range(2) for last in (10, 20, 30) for name in order]
    assert [len(times) for times in contenders[0].seconds.values()] == [2, 2, 2]
    assert contenders[0].outputs[1] == [(20, 21, 22, 23)] * 2


def open_turns(folder: Path) -> list[str]:
    return (folder / "turns").read_text().splitlines()


def test_a_mode_that_fails_takes_no_other_with_it(adapters: Adapters) -> None:
    venue = adapters(broken=BROKEN)
    with venue.enter(venue.install(["broken"]), target()) as peers:
        first, second = line_up(peers), []
        for contenders in (first, second):
            contenders[:] = line_up(peers)
            list(measure(contenders, PROMPTS, PLAN))
    for contenders in (first, second):  # a mode that failed is not asked again, and its reason stays
        assert {c.mode: c.failure for c in contenders} == {
            "absent": "ZeroDivisionError: division by zero",
            "failing": "ValueError: head size 8",
            "short": "1 tokens instead of 4",
            "fine": None,
        }
    assert second[[c.mode for c in second].index("failing")].process is None


def test_a_peer_that_dies_midway_is_a_row_with_its_last_words(adapters: Adapters) -> None:
    contenders = rounds(adapters(dying=DYING, one=GOOD))
    found = table(Run("tiny", "float32", PLAN, PROMPTS, contenders), {})
    rows = {row[0]: row for row in found.rows}
    assert rows["dying only"] == ["dying only", "–", "–", "died with exit code 3: out of luck"]
    assert "–" not in rows["one first"][1:3]
    assert contenders[0].seconds  # what it did before stays in the record


def test_a_silent_peer_is_given_up(adapters: Adapters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TURN_SECONDS", 0.3)
    contenders = rounds(adapters(silent=SILENT))
    assert contenders[0].failure == "no answer in 0 s"


def test_an_adapter_that_does_not_start_says_why(adapters: Adapters) -> None:
    contenders = rounds(adapters(wrong="import no_such_module\n", unable=UNABLE))
    reasons = {c.name: c.failure for c in contenders}
    assert reasons == {
        "wrong": "died with exit code 1: ModuleNotFoundError: No module named 'no_such_module'",
        "unable": "export failed: ValueError: not a Llama",
    }


def test_weights_are_exported_once_and_again_for_other_weights(adapters: Adapters, tmp_path: Path) -> None:
    venue = adapters(exporting=EXPORTING)
    installed = venue.install(["exporting"])
    for what in (target("abcdef"), target("abcdef"), target("ghijkl"), target("abcdef", "draft")):
        with venue.enter(installed, what) as peers:
            (contender,) = line_up(peers)
            list(measure([contender], PROMPTS, PLAN))
        assert contender.outputs[0][0] == tuple(map(ord, what.folder[:4]))
    assert len(list((tmp_path / "cache" / "exports").iterdir())) == 3
    adapters(exporting=EXPORTING + "# changed\n")
    with venue.enter(installed, target("abcdef")):
        assert len(list((tmp_path / "cache" / "exports").iterdir())) == 4


def test_a_folder_left_unfinished_is_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "made"

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made_once(place, fail)
    assert not place.exists()
    made_once(place, lambda folder: (folder / "whole").touch())
    made_once(place, fail)  # not called
    assert [path.name for path in place.iterdir()] == ["whole"]


def test_a_peer_that_cannot_be_installed_is_a_row_and_a_mended_recipe_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = install._run

    def lightly(command: Sequence[str], log: Path) -> str:
        """The pip that is here serves: to unpack another takes seconds each time."""
        borrowed = ["--without-pip", "--system-site-packages"] if "venv" in command else []
        return step([*command, *borrowed], log)

    monkeypatch.setattr(install, "_run", lightly)
    venue = Venue(tmp_path, 1, {"absent": Recipe(("./no-such-folder",))})
    installed = venue.install(["absent"])
    assert str(installed["absent"]).startswith("not installed: ")
    assert "no-such-folder" in str(installed["absent"])
    with venue.enter(installed, target()) as peers:
        (row,) = table(Run("tiny", "float32", PLAN, PROMPTS, line_up(peers)), {}).rows
    assert row == ["absent", "–", "–", installed["absent"]]
    python = python_of("absent", Recipe(("pip",), ("pip",)), tmp_path)
    assert python.exists()
    said = (tmp_path / "absent.log").read_text()
    assert "no-such-folder" not in said
    assert python_of("absent", Recipe(("pip",), ("pip",)), tmp_path) == python
    assert (tmp_path / "absent.log").read_text() == said  # nothing ran
    with pytest.raises(CannotInstallError, match="no-such-folder"):
        python_of("absent", Recipe(("pip", "./no-such-folder")), tmp_path)


def test_unwanted_requirements_are_left_out_by_name_alone() -> None:
    lines = ["torch==2.13.0", "torchvision; platform_machine != 'x'", "torchcodec>=0.14", "torchvision-extra", "av"]
    assert wanted(lines, ("torchvision", "torchcodec")) == ["torch==2.13.0", "torchvision-extra", "av"]


SETTINGS = Settings(("story", "copy"), 2, 4, (0.0, 1.0), 1, 0.0)


def test_a_run_is_written_after_every_round(
    adapters: Adapters, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = adapters(one=GOOD, dying=DYING)
    record = Record(tmp_path / "peers.json", tmp_path / "peers.md", {"command": "run.py"})
    written: list[list[int]] = []

    def write() -> None:
        Record.write(record)
        runs = json.loads((tmp_path / "peers.json").read_text())["runs"]
        written.append([len(one["contenders"][0]["seconds"]) for one in runs])

    monkeypatch.setattr(record, "write", write)
    compete(tiny, "float32", SETTINGS, venue, venue.install(["one", "dying"]), record)
    assert written == [[0], [4], [4, 0], [4, 4]]
    found = json.loads((tmp_path / "peers.json").read_text())
    assert [one["temperature"] for one in found["runs"]] == [0.0, 1.0]
    assert [prompt["task"] for prompt in found["runs"][0]["prompts"]] == ["story", "story", "copy", "copy"]
    assert list(found["versions"]) == ["one", "dying"]
    first = found["runs"][0]["contenders"][0]
    assert set(first["tokens_per_second"]) == {"story", "copy"}
    assert "died with exit code 3" in (tmp_path / "peers.md").read_text()


def test_the_command_refuses_what_it_does_not_know(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown peer 'mlx'; allowed: paceline"):
        run._known("paceline,mlx")
    with pytest.raises(ConfigError, match="unknown task 'noise'; allowed: story"):  # it needs its own temperature
        prepare(tiny, "float32", replace(SETTINGS, tasks=("noise",)), Venue(tmp_path, 1))
    with pytest.raises(ConfigError, match="has no config"):
        checkpoint(str(tmp_path), "float32", tmp_path)
    with pytest.raises(ConfigError, match="no prompt of story fits"):
        compete(
            tiny,
            "float32",
            Settings(("story",), 1, MAX_LENGTH - 6, (), 1, 0.0),
            Venue(tmp_path, 1),
            {},
            Record(None, None, {}),
        )


def test_targets_are_made_in_the_dtype_asked_for(tmp_path: Path) -> None:
    folder, draft = (make("bundled", "float32", tmp_path) for make in (checkpoint, draft_checkpoint))
    assert draft is not None
    for made in (folder, draft):
        assert json.loads((made / "config.json").read_text())["dtype"] == "float32"
        assert (made / "tokenizer.json").exists()
    assert checkpoint("bundled", "float32", tmp_path) == folder
    assert draft_checkpoint(str(folder), "float32", tmp_path) is None


def test_every_recipe_has_an_adapter_and_pins_what_it_installs() -> None:
    for name, recipe in RECIPES.items():
        assert (BENCHMARKS / "peers" / "adapters" / f"{name}.py").is_file()
        assert all("==" in package for package in (*recipe.packages, *recipe.bare))


def test_paceline_and_transformers_say_the_same_through_their_adapters(
    tiny: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    venue = Venue(tmp_path, 1, {"paceline": Recipe(), "transformers": Recipe()})
    prompts = [Prompt("list", tuple(b"1, 2, 3, 1, 2, 3, 1, 2,"))]
    what = Target(tiny, tiny, "float32", 1, 128, exports="")
    with venue.enter(venue.install(["paceline", "transformers"]), what) as peers:
        assert all(isinstance(peer, PeerProcess) for peer in peers.values()), peers
        contenders = line_up(peers)
        list(measure(contenders, prompts, Plan(12, 0.0, 1, 0.0)))
    assert {c.failure for c in contenders} == {None}
    assert {c.name for c in contenders} == {
        *(f"paceline {mode}" for mode in ("auto", "none", "auto without draft model", "auto again")),
        *(f"transformers {mode}" for mode in ("generate", "prompt lookup", "assisted")),
    }
    assert len({c.outputs[0][0] for c in contenders}) == 1


def test_adapters_see_the_same_threads_and_no_network() -> None:
    found = process.environment_of((Path("one"), Path("two")), 3)
    assert (found["OMP_NUM_THREADS"], found["HF_HUB_OFFLINE"]) == ("3", "1")
    assert found["PYTHONPATH"].startswith(f"one{':' if sys.platform != 'win32' else ';'}two")


# servers


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A target with a draft model; nothing is installed, built or exported."""
    python = tmp_path / "vllm" / "bin" / "python"
    (tmp_path / "vllm" / "lib").mkdir(parents=True)
    (tmp_path / "vllm" / "lib" / "libiomp5.so").touch()
    monkeypatch.setattr(servers, "python_of", lambda name, recipe, cache: python)
    monkeypatch.setattr(servers, "llama_server", lambda cache: cache / "llama-server")
    monkeypatch.setattr(servers, "export", lambda command, environment, target, log: None)
    return Site(Target("weights", "draft", "float32", 3, 640, exports=""), 16, tmp_path, (BENCHMARKS,))


def after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_servers_get_the_same_weights_threads_and_room(site: Site) -> None:
    (ours,) = servers.paceline_servers(site)
    assert ours.contenders == {"paceline": {}, "paceline plain": {"speculation": {"drafters": "none"}}}
    assert (after(ours.command, "--model"), after(ours.command, "--draft-model")) == ("weights", "draft")
    assert ours.environment["OMP_NUM_THREADS"] == "3"
    plain, drafting = servers.vllm_servers(site)
    assert (after(plain.command, "--max-num-seqs"), after(plain.command, "--max-model-len")) == ("16", "640")
    assert plain.environment["LD_PRELOAD"].endswith("libiomp5.so")
    assert json.loads(after(drafting.command, "--speculative-config"))["model"] == "draft"
    assert "--speculative-config" not in plain.command
    plain, drafting = servers.llama_servers(site)
    assert after(plain.command, "--ctx-size") == str(16 * 640)
    assert (after(plain.command, "--threads"), after(plain.command, "--cache-type-k")) == ("3", "f32")
    assert after(drafting.command, "--spec-draft-model").endswith("draft.gguf")


def test_a_server_that_cannot_start_is_a_row_that_says_why(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(site: Site) -> list[PeerServer]:
        return [PeerServer([sys.executable, "-c", "raise SystemExit('head size 8')"], {}, {"vllm plain": {}})]

    def missing(site: Site) -> list[PeerServer]:
        raise CannotInstallError("cmake is not installed")

    monkeypatch.setattr(serving, "SERVERS", {"vllm": dying, "llamaserver": missing})
    with ExitStack() as stack:
        ready, absent = serving.start(["vllm", "llamaserver"], site, stack)
    assert ready == {}
    assert "head size 8" in absent["vllm plain"]
    assert absent["llamaserver"] == "cmake is not installed"


@pytest.mark.parametrize(("one", "many", "reached"), [(0.9, 1.0, [True, True]), (1.0, 1.1, [False, False])])
def test_peers_are_behind_at_one_client_and_not_ahead_at_many(one: float, many: float, reached: list[bool]) -> None:
    rates = {("paceline", 1): 1.0, ("paceline", 16): 1.0, ("vllm plain", 1): one, ("vllm plain", 16): many}
    sweep = Sweep(SweepPlan((1, 16), 1, 0), ("paceline", "vllm plain"), 5)
    sweep.rounds = {key: [{"saturated_output_throughput": rate}] for key, rate in rates.items()}
    assert [line.is_reached for line in serving.verdicts(sweep)] == reached
