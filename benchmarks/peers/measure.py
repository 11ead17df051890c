"""Rounds in which all modes of all peers take turns, so that what disturbs the machine disturbs everybody."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from peers.process import PeerError, PeerProcess
from peers.protocol import Turn

PACELINE = "paceline"


@dataclass(frozen=True)
class Prompt:
    """A prompt in tokens, the same for everybody."""

    task: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What everybody decodes, and how often."""

    max_tokens: int
    temperature: float
    repeats: int
    rest: float = 0.25  # seconds before a turn: OpenMP runtimes let threads spin for up to 0.2 s after their work


@dataclass
class Contender:
    """One mode of one peer: its outputs and times so far, or why there are none."""

    peer: str
    mode: str
    process: PeerProcess | None
    failure: str | None = None
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by prompt, one for each round
    outputs: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.peer} {self.mode}".strip()

    def take(self, index: int, turn: Turn, is_warm_up: bool = False) -> None:
        """Decode prompt `index` and keep what came of it; a contender that fails is out from then on."""
        if self.process is None or self.failure is not None:
            return
        try:
            tokens, seconds = self.process.decode(turn)
        except PeerError as error:
            self._withdraw(str(error))
            return
        if len(tokens) != turn.max_tokens:
            self._withdraw(f"{len(tokens)} tokens instead of {turn.max_tokens}")
        elif not is_warm_up:
            self.seconds.setdefault(index, []).append(seconds)
            self.outputs.setdefault(index, []).append(tokens)

    def _withdraw(self, why: str) -> None:
        """Out of this run, and of later ones: some peers never come back from a failed request."""
        assert self.process is not None
        self.failure = why
        self.process.withdraw(self.mode, why)


def line_up(peers: dict[str, PeerProcess | str]) -> list[Contender]:
    """Contenders in the order of their turns: one peer follows another. A string says why a peer is absent."""
    groups = [_group(name, peer) for name, peer in peers.items()]
    return [one for turn in itertools.zip_longest(*groups) for one in turn if one is not None]


def _group(name: str, peer: PeerProcess | str) -> list[Contender]:
    if isinstance(peer, str):
        return [Contender(name, "", None, peer)]
    failed = [Contender(name, mode, None, why) for mode, why in peer.failed.items()]
    return [Contender(name, mode, peer) for mode in peer.modes] + failed


def measure(contenders: Sequence[Contender], prompts: Sequence[Prompt], plan: Plan) -> Iterator[None]:
    """Two untimed turns each, on the longest and the shortest prompt, then the rounds; yields after each."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
    for index in (order[-1], order[0]):
        for contender in contenders:
            contender.take(index, _turn(contender, prompts[index], index, plan), is_warm_up=True)
    yield
    for _ in range(plan.repeats):
        for index, prompt in enumerate(prompts):
            for contender in contenders:
                time.sleep(plan.rest if contender.failure is None else 0.0)
                contender.take(index, _turn(contender, prompt, index, plan))
        yield


def _turn(contender: Contender, prompt: Prompt, index: int, plan: Plan) -> Turn:
    return Turn(contender.mode, prompt.ids, plan.max_tokens, plan.temperature, seed=index)
