"""How each peer's server is started on a checkpoint: the same weights, dtype, threads and number of sequences.

Nobody keeps prompts: prefix caches are off, or never hit (ours, by a `cache_salt` of each cell).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.bench.serve.process import HOST, paceline_command
from peers.adapters.llamaserver import DRAFT, OWN
from peers.install import python_of
from peers.llama_server import llama_server
from peers.process import environment_of, export
from peers.protocol import Target
from peers.recipes import RECIPES, Recipe
from peers.targets import made_once

_GGUF = Recipe(("torch==2.13.0", "transformers==5.24.0", "gguf==0.19.0"))
_VLLM_DRAFT = '{"method": "draft_model", "num_speculative_tokens": 4, "model": "%s"}'
_LLAMA_DRAFT_TOKENS = 4
_VLLM_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its threads may run where those of the other peers may
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class PeerServer:
    """A server to start: its command, which takes `--port`, and fields of every request to it by contender."""

    command: list[str]
    environment: Mapping[str, str]
    contenders: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Site:
    """What every server is started on."""

    target: Target
    clients: int  # the most at once
    cache: Path
    folders: tuple[Path, ...]  # what exporters import from

    @property
    def environment(self) -> dict[str, str]:
        """The same threads, and no network."""
        return environment_of(self.folders, self.target.threads)


def paceline_servers(site: Site) -> list[PeerServer]:
    """One process; drafting is chosen by each request."""
    command = paceline_command("paceline", site.target.folder, site.target.draft, site.target.dtype)
    contenders = {"paceline": {}, "paceline plain": {"speculation": {"drafters": "none"}}}
    return [PeerServer(command, site.environment, contenders)]


def vllm_servers(site: Site) -> list[PeerServer]:
    """Plain, and with the draft model, by vllm-cpu."""
    found = [vllm_server(site, "vllm plain")]
    if site.target.draft is not None:
        found.append(vllm_server(site, "vllm draft model", "--speculative-config", _VLLM_DRAFT % site.target.draft))
    return found


def vllm_server(site: Site, name: str, *arguments: str) -> PeerServer:
    """A server of vllm-cpu with further arguments; its `vllm` command asks for a package of another name."""
    target = site.target
    python = python_of("vllm", RECIPES["vllm"], site.cache)
    library = python.parent.parent / "lib" / "libiomp5.so"  # asked for on a CPU, before the process starts
    preload = {"LD_PRELOAD": str(library)} if library.exists() else {}
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", target.folder, "--host", HOST]
    command += ["--dtype", target.dtype, "--max-model-len", str(target.max_length)]
    command += ["--max-num-seqs", str(site.clients), "--no-enable-prefix-caching", *arguments]
    return PeerServer(command, {**site.environment, **_VLLM_SETTINGS, **preload}, {name: {}})


def llama_servers(site: Site) -> list[PeerServer]:
    """Plain, and with the draft model, by llama-server; a slot and a context for each client."""
    target = site.target
    python = python_of("llamaserver", _GGUF, site.cache)
    exporter = [str(python), "-m", "peers.adapters.llamaserver"]

    def fill(folder: Path) -> None:
        wanted = Target(**{**vars(target), "exports": str(folder)})
        export(exporter, site.environment, wanted, site.cache / "logs" / "llamaserver.log")

    (site.cache / "logs").mkdir(parents=True, exist_ok=True)
    weights = made_once(site.cache / "exports" / f"llamaserver-{Path(target.folder).name}", fill)
    threads, length = str(target.threads), str(site.clients * target.max_length)
    command = [str(llama_server(site.cache)), "--model", str(weights / OWN), "--host", HOST, "--ctx-size", length]
    command += ["--parallel", str(site.clients), "--threads", threads, "--threads-batch", threads]
    command += ["--no-cache-prompt", "--cache-ram", "0", "--metrics"]
    if target.dtype == "float32":  # the default rounds keys and values to float16
        command += ["--cache-type-k", "f32", "--cache-type-v", "f32"]
    found = [PeerServer(command, dict(os.environ), {"llama-server plain": {}})]
    if target.draft is not None:
        drafting = [*command, "--spec-type", "draft-simple", "--spec-draft-model", str(weights / DRAFT)]
        drafting += ["--spec-draft-n-max", str(_LLAMA_DRAFT_TOKENS)]
        found.append(PeerServer(drafting, dict(os.environ), {"llama-server draft model": {}}))
    return found


SERVERS: dict[str, Callable[[Site], list[PeerServer]]] = {
    "paceline": paceline_servers,
    "vllm": vllm_servers,
    "llamaserver": llama_servers,
}
