"""Where peers compete: their environments, the folders that they share, and their processes while a target is on."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from paceline.console import progress
from peers.install import CannotInstallError, python_of
from peers.process import PeerError, PeerProcess, environment_of, export
from peers.protocol import Target
from peers.recipes import RECIPES, Recipe
from peers.targets import made_once

_BENCHMARKS = Path(__file__).parents[1]
_SOURCES = _BENCHMARKS.parent / "src"


@dataclass(frozen=True)
class Venue:
    """Peers by recipe and adapter, and a folder for environments, exported weights and logs."""

    cache: Path
    threads: int
    recipes: Mapping[str, Recipe] = field(default_factory=lambda: RECIPES)
    adapters: str = "peers.adapters"  # a package with a module for each peer
    folders: tuple[Path, ...] = (_BENCHMARKS, _SOURCES)  # what adapters may import from

    def install(self, names: Sequence[str]) -> dict[str, Path | str]:
        """Each peer's interpreter, or why there is none."""
        found: dict[str, Path | str] = {}
        for name in names:
            with progress(f"{name}: installing, if missing"):
                try:
                    found[name] = python_of(name, self.recipes[name], self.cache)
                except CannotInstallError as error:
                    found[name] = f"not installed: {error}"
        return found

    @contextmanager
    def enter(self, installed: Mapping[str, Path | str], target: Target) -> Iterator[dict[str, PeerProcess | str]]:
        """Peers that have loaded a target, or why they have not; they end with the context."""
        with ExitStack() as closing:
            entered: dict[str, PeerProcess | str] = {}
            for name, python in installed.items():
                with progress(f"{name}: loading"):
                    is_able = target.dtype in self.recipes[name].dtypes
                    there = python if is_able else f"its adapter knows no {target.dtype}"
                    entered[name] = there if isinstance(there, str) else self._start(name, there, target, closing)
            yield entered

    def _start(self, name: str, python: Path, target: Target, closing: ExitStack) -> PeerProcess | str:
        command = [str(python), "-m", f"{self.adapters}.{name}"]
        environment = environment_of(self.folders, target.threads)
        log = self.cache / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)

        def fill(folder: Path) -> None:
            export(command, environment, replace(target, exports=str(folder)), log)

        try:
            if self.recipes[name].has_export:
                target = replace(target, exports=str(made_once(self._exports(name, target), fill)))
            process = PeerProcess(command, environment, target, log)
        except PeerError as error:
            return str(error)
        closing.callback(process.close)
        return process

    def _exports(self, name: str, target: Target) -> Path:
        """A folder whose name changes with the adapter, the weights, their dtype and the draft model's."""
        spec = importlib.util.find_spec(self.adapters)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        source = Path(spec.submodule_search_locations[0]) / f"{name}.py"
        what = f"\n{target.folder}\n{target.dtype}\n{target.draft}"
        digest = hashlib.sha256(source.read_bytes() + what.encode()).hexdigest()[:12]
        return self.cache / "exports" / f"{name}-{digest}"
