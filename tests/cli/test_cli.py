"""The command as a user runs it: real processes, real exit codes, no tracebacks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.bundled import ROOT
from paceline.cli.options import parse_drafters
from paceline.drafters import available
from paceline.drafters._options import limits
from paceline.drafters.base import options_of
from paceline.errors import ConfigError

ANY = next(iter(available()))  # some drafter
PLAIN = ("--drafters", "none")  # where drafters are not in question: to load them takes as long as the model


def test_the_command_runs_as_a_process_of_its_own(python: str) -> None:
    command = [python, "-m", "paceline", "generate"]
    few = ["Once upon a time", "--max-tokens", "5", "--seed", "4"]
    done = subprocess.run([*command, *few], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "seed 4" in done.stderr
    refused = subprocess.run([*command, "Once", "--temperature", "nan"], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_generate_prints_the_text_and_one_line_of_facts(run) -> None:
    done = run("generate", "Once upon a time", "--max-tokens", "15", "--seed", "4")
    assert done.returncode == 0
    assert len(done.stdout.strip()) > 10
    assert "15 tokens in" in done.stderr
    assert "tokens a step" in done.stderr
    assert "seed 4" in done.stderr


@pytest.mark.parametrize("asked", [["--regex", "(yes|no) *"], ["--choice", "yes", "--choice", "no"]], ids=str)
def test_generate_follows_a_grammar(run, asked: list[str]) -> None:
    done = run("generate", "Well?", "--quiet", *PLAIN, *asked)
    assert done.returncode == 0
    assert done.stdout.strip() in ("yes", "no")


def test_generate_follows_a_schema_given_as_itself_or_as_a_file(run, tmp_path: Path) -> None:
    schema = json.dumps({"enum": [{"answer": "yes"}, {"answer": "no"}], "x-guidance": {"whitespace_flexible": False}})
    (tmp_path / "schema.json").write_text(schema)
    texts = {
        run("generate", "Well?", "--quiet", *PLAIN, "--json-schema", given).stdout
        for given in (schema, str(tmp_path / "schema.json"))
    }
    assert len(texts) == 1
    assert json.loads(texts.pop())["answer"] in ("yes", "no")


def test_explain_says_who_brought_what_and_why_the_pacer_stopped(run, tmp_path: Path) -> None:
    (tmp_path / "expected.txt").write_text(", there was a little girl named Lily.")
    asked = (
        "--max-tokens",
        40,
        "--prediction",
        tmp_path / "expected.txt",
        "--max-slowdown",
        0.5,
        "--num-speculative-tokens",
        5,
    )
    done = run("generate", "Once upon a time", "--explain", *map(str, asked))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    [header] = [line for line in lines if line.startswith("drafter ")]
    assert header.split()[1:] == ["asked", "drafts", "given", "rows", "accepted", "ms", "spent", "ms", "saved"]
    if "prediction" in available():
        assert any(line.startswith("prediction ") for line in lines)
    assert any("why drafting went no further" in line for line in lines)
    assert "and the guard allowed" in lines[-1]


def test_json_has_the_promised_fields_and_reads_standard_input(run) -> None:
    done = run(
        "generate", "-", "--max-tokens", "9", "--temperature", "1", "--seed", "3", "--json", stdin="Once upon a time"
    )
    result = json.loads(done.stdout)
    assert result.keys() == {"text", "token_ids", "finish_reason", "seed", "stats"}
    assert (len(result["token_ids"]), result["seed"], result["finish_reason"]) == (9, 3, "length")
    assert result["stats"].keys() >= {
        "num_prompt_tokens",
        "num_emitted_tokens",
        "num_steps",
        "num_draft_tokens",
        "num_accepted_draft_tokens",
        "mean_acceptance_length",
        "draft_acceptance_rate",
        "acceptance_histogram",
        "prefill_seconds",
        "decode_seconds",
        "load_seconds",
        "tokens_per_second",
        "drafters",
    }
    assert result["stats"]["drafters"]
    for drafter in result["stats"]["drafters"].values():
        assert drafter.keys() >= {"num_draft_tokens", "num_accepted_draft_tokens", "seconds"}


def test_quiet_prints_the_continuation_alone(run) -> None:
    done = run("generate", "Once", "--max-tokens", "3", "--quiet", *PLAIN)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_stop_string_ends_the_text_before_it(run) -> None:
    asked = ["generate", "Once upon a time", "--max-tokens", "30", "--json", *PLAIN]
    whole = json.loads(run(*asked).stdout)
    stop = whole["text"][8:11]
    cut = json.loads(run(*asked, "--stop", stop).stdout)
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    assert cut["finish_reason"] == "stop"


def broken_folder(tmp_path: Path, edit: str) -> str:
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "paceline-tiny", folder)
    if edit == "truncated":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5_000])
    elif edit == "no weights":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "config.json").write_text("{")
    return str(folder)


@pytest.mark.parametrize("edit", ["truncated", "no weights", "bad config"])
def test_a_broken_folder_is_refused_in_one_line(run, tmp_path: Path, edit: str) -> None:
    folder = broken_folder(tmp_path, edit)
    done = run("generate", "Once", "--model", folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "cannot load the model" in done.stderr
    assert folder in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate", "", *PLAIN], "the prompt is empty"),
        (["generate", "Once", "--top-p", "0"], "top_p is 0.0; allowed"),
        (["generate", "Once", "--temperature", "nan"], "temperature is nan; allowed"),
        (["generate", "Once", "--max-tokens", "0"], "greater than or equal to 1"),
        (["generate", "Once", "--regex", "a", "--choice", "a"], "regex and choice are given together"),
        (["generate", "Once", "--json-schema", "{]"], "--json-schema is '{]': "),
        (["generate", "Once", "--json-schema", "none.json"], "--json-schema is 'none.json': "),
        (["generate", "Once", "--prediction", "./nowhere"], "--prediction is './nowhere': "),
        (["generate", "Once", "--max-slowdown", "-1"], "max_slowdown is -1.0; allowed: a number in [0, 10]"),
        (
            ["generate", "Once", "--num-speculative-tokens", "65"],
            "num_speculative_tokens is 65; allowed: an integer from 0 to 64",
        ),
        (["generate", "Once", "--drafters", "sufix"], "unknown drafter 'sufix'; allowed: "),
        (["generate", "Once", "--drafters", f"{ANY}:min=3"], "has no option 'min=3'"),
        (["generate", "Once", "--drafters", f"none,{ANY}"], "'none' stands alone"),
        (["generate", "Once", "--drafters", "none", "--drafters", "auto"], "'none' stands alone"),
        (["generate", "Once", "--drafters", ","], "--drafters is ','; allowed: auto, none, or drafters"),
        (["generate", "Once", "--draft-model", "./nowhere"], "no model in the folder './nowhere'"),
        (["report", "Once", "--draft-model", "./nowhere"], "no model in the folder './nowhere'"),
        (["certify", "--drafters", "auto", "--drafters", "sufix"], "unknown drafter 'sufix'; allowed: "),
        (["generate", "Once", "--model", "./nowhere"], "no model in the folder './nowhere'"),
        (["generate", "Once", "--dtype", "int3"], "dtype is 'int3'; allowed"),
        (["generate", "Once", "--device", "tpu"], "device is 'tpu'"),
        (["generate", "Once " * 3000, *PLAIN], "maximum context length is 2048 tokens"),
        (["generate", "Once", "--no-such-option"], "No such option"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(run, args: list[str], said: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


ACCEPTED = {
    "auto": (["auto"], "auto"),
    "none": (["none"], "none"),
    "a name": ([ANY], [ANY]),
    "names at commas": ([f"auto, {ANY}"], ["auto", ANY]),
    "repeated": (["auto", ANY], ["auto", ANY]),
    "a name before one with options": ([f"auto,{ANY}:"], ["auto", f"{ANY}:"]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_drafters_are_names_at_commas_or_options_given_again(case: str) -> None:
    given, meant = ACCEPTED[case]
    assert parse_drafters(given) == meant


@pytest.mark.skipif("corpus" not in available(), reason="there is no drafter that takes a path")
@given(path=st.text(st.sampled_from("ab/,=:. é"), min_size=1))
def test_a_path_in_a_drafters_options_is_left_whole(path: str) -> None:
    spec = f"corpus:path={path}"
    assert parse_drafters(["auto", spec]) == ["auto", spec]
    assert parse_drafters([f"auto,{spec}"]) == ["auto", spec]


@pytest.mark.skipif("corpus" not in available(), reason="there is no drafter that takes a path")
def test_texts_in_an_oddly_named_folder_join_the_automatic_drafters(run, tmp_path: Path) -> None:
    folder = tmp_path / "a,b=c" / "docs, more"
    folder.mkdir(parents=True)
    (folder / "story.txt").write_text("Once upon a time, there was a little girl named Lily. " * 3)
    asked = ["--drafters", "auto", "--drafters", f"corpus:path={folder},min_match=3", "--max-slowdown", "10"]
    done = run("generate", "Once upon a time", "--max-tokens", "12", "--json", *asked)
    assert done.returncode == 0, done.stderr
    drafters = json.loads(done.stdout)["stats"]["drafters"]
    assert "corpus" in drafters
    assert len(drafters) > 1


@pytest.mark.skipif("model" not in available(), reason="there is no drafter that takes a draft model")
def test_a_draft_model_joins_the_automatic_drafters(run, tmp_path: Path) -> None:
    for name in ("paceline-tiny", "paceline-tiny-draft"):  # as folders, of which nothing is known
        shutil.copytree(ROOT / name, tmp_path / name)
    command = ["generate", "Once upon a time", "--max-tokens", "12", "--json", "--max-slowdown", "10"]
    command += ["--model", str(tmp_path / "paceline-tiny")]
    without = json.loads(run(*command).stdout)
    with_one = json.loads(run(*command, "--draft-model", str(tmp_path / "paceline-tiny-draft")).stdout)
    assert with_one["token_ids"] == without["token_ids"]
    assert "model" not in without["stats"]["drafters"]
    assert with_one["stats"]["drafters"]["model"]["num_draft_tokens"] > 0


def test_certify_hands_on_what_it_was_given(run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def load(*args: object, **options: object) -> None:
        asked.update(options)
        raise ConfigError("far enough")

    monkeypatch.setattr("paceline.certify.run.load", load)
    done = run("certify", "--drafters", "auto", "--drafters", f"{ANY}:", "--draft-model", "a,b=c/draft")
    assert (done.returncode, done.stderr.strip()) == (2, "paceline: far enough")
    assert asked["draft_model"] == "a,b=c/draft"


def test_ctrl_c_keeps_the_tokens_prints_the_facts_and_exits_with_130(python: str) -> None:
    process = subprocess.Popen(
        [
            python,
            "-m",
            "paceline",
            "generate",
            "Once upon a time",
            "--max-tokens",
            "1900",
            "--temperature",
            "1",
            "--seed",
            "1",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    first = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, facts = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(first) == 20
    assert "abort" in facts
    assert "tokens in" in facts
    assert "Traceback" not in facts


def test_ctrl_c_while_a_model_is_read_is_130_and_not_a_word() -> None:
    """The thread that reads it is in C++ nearly always: an interpreter that ended meanwhile would abort."""
    code = """
import sys, torch, paceline.model.loading
from paceline.cli import main
def read_for_ever(*args, **options):
    print("reading", flush=True)
    while True: torch.ones(64, 512) @ torch.ones(512, 512)
paceline.model.loading.load_target = read_for_ever
sys.argv = ["paceline", "generate", "Once"]
main()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")


def test_a_closed_pipe_is_no_traceback(python: str) -> None:
    command = f"{python} -m paceline generate 'Once upon a time' --max-tokens 300 --quiet | head -c 5"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert len(done.stdout) == 5
    assert "Traceback" not in done.stderr


def test_drafters_and_models_are_listed(run) -> None:
    listed = run("drafters").stdout.splitlines()
    for name, cls in available().items():
        start = next(i for i, line in enumerate(listed) if line.startswith(f"{name}  "))
        for field in options_of(cls):
            line = next(line for line in listed[start:] if line.startswith(f"  {field.name} "))
            assert line.split()[1] == str(field.default) or not field.default
            assert limits(field) in " ".join(line.split())
    assert "paceline-tiny-draft" in run("models").stdout
    verdict = run("models", "paceline-tiny").stdout
    assert "exact: identical bits proven" in " ".join(verdict.split())


def test_the_version_is_printed(run) -> None:
    assert run("--version").stdout.startswith("paceline 0.")
