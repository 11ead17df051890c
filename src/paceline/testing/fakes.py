"""Public fakes: a target and a drafter that follow a script, so that tests need no model.

    target = ScriptedTarget(lambda history: -np.arange(5.0), vocab_size=5)
    llm = LLM.from_target(target, tokenizer=None, drafters=[ScriptedDrafter.perfect(target)])
    llm.generate([3, 1], max_tokens=8)

Both keep to their ports as strictly as they can, and `ScriptedTarget` raises when the engine does not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from paceline.drafters import BaseDrafter
from paceline.engine.request import DraftLimits, Request, StepOutcome
from paceline.engine.tree import DraftTree

Logits = Callable[[tuple[int, ...]], ArrayLike]
Proposal = DraftTree | Sequence[int]
_ENDLESS = 2**62
Script = Callable[[Request, int], Proposal] | Iterable[Proposal]


class ScriptedTarget:
    """A `Target` whose logits are `logits(history)`, (V,), with the row's own token last in `history`.

    Its cache is the list of tokens that were committed to it. Whatever would spoil a real cache raises
    `AssertionError`: rows over anything but `tokens[:-1]`, too many or too far, where there is no room, a path that
    is no path.
    """

    def __init__(
        self,
        logits: Logits,
        vocab_size: int,
        *,
        max_length: int = 2**20,
        max_rows: int = 64,
        cache_tokens: int | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.hosting = 0.0
        self.contexts: Sequence[int] = (max_length,)
        self.capacity = max_length if cache_tokens is None else cache_tokens
        self.reads = None
        self.max_rows = max_rows  # of one forward, shared by its requests
        self.num_forwards = 0
        self.on_prefill: Callable[[int], None] | None = None
        self._script = logits
        self._room = cache_tokens  # None is endless
        self._reserved: dict[int, int] = {}  # request id -> positions set aside
        self._cached: dict[int, list[int]] = {}
        self._scored: dict[int, tuple[int, DraftTree]] = {}  # request id -> pending token and tree

    @property
    def row_counts(self) -> Sequence[int]:
        """See `Target`: any number."""
        return range(1, self.max_rows + 1)

    @property
    def num_held(self) -> int:
        """Requests that hold cache."""
        return len(self._reserved)

    def logits(self, history: Sequence[int]) -> NDArray[np.float32]:
        """The script's logits (V,) float32 after `history`."""
        row = np.asarray(self._script(tuple(history)), np.float32)
        if row.shape != (self.vocab_size,):
            raise ValueError(f"the script gave logits of shape {row.shape}; allowed: ({self.vocab_size},)")
        return row

    @property
    def num_free(self) -> int:
        """Positions that can still be set aside."""
        return _ENDLESS if self._room is None else self._room - sum(self._reserved.values())

    @property
    def cache_usage(self) -> float:
        """See `Target`."""
        return 0.0 if not self._room else sum(self._reserved.values()) / self._room

    def reserve(self, request: Request, spare: int) -> bool:
        """See `Target`."""
        _demand(request.id not in self._reserved, request, "is reserved twice")
        if len(request.tokens) + spare > self.num_free:
            return False
        self._reserved[request.id] = len(request.tokens)
        self._cached[request.id] = []
        return True

    def num_unread(self, request: Request) -> int:
        """See `Target`."""
        return len(request.tokens) - 1 - len(self._cached.get(request.id, ()))

    def read(self, request: Request, max_rows: int) -> int:
        """See `Target`: as many rows as it may."""
        _demand(request.id in self._reserved, request, "is read without having been reserved")
        _demand(max_rows > 0 and self.num_unread(request) > 0, request, "is read where nothing is left to read")
        cached = self._cached[request.id]
        chunk = request.tokens[len(cached) : -1][:max_rows]
        if request.on_prompt_logits is not None:
            rows = [self.logits(request.tokens[: len(cached) + i + 1]) for i in range(len(chunk))]
            request.on_prompt_logits(len(cached), np.stack(rows))
        cached += chunk
        if self.on_prefill is not None:
            self.on_prefill(len(chunk))
        return len(chunk)

    def grow(self, request: Request, num_rows: int) -> int:
        """See `Target`."""
        _demand(request.id in self._reserved, request, "grows without having been reserved")
        room = self._reserved[request.id] - len(self._cached[request.id])
        added = min(max(num_rows - room, 0), self.num_free)
        self._reserved[request.id] += added
        return min(num_rows, room + added)

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """See `Target`."""
        self.num_forwards += 1
        num_rows = sum(len(tree) + 1 for _, tree in work)
        for request, tree in work:
            _demand(not tree or num_rows <= self.max_rows, request, "brings more draft nodes than fit")
            deepest = len(request.tokens) + max(tree.depths, default=0)
            _demand(deepest <= self.max_length, request, "brings a row beyond the context")
        return [self._score(request, tree) for request, tree in work]

    def dry_run(self, num_rows: int, context: int) -> bool:
        """See `Target`."""
        return context + num_rows <= self.max_length

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """See `Target`."""
        pending, tree = self._scored.pop(request.id)
        above = (-1, *path)
        is_path = all(0 <= node < len(tree) and tree.parents[node] == up for up, node in zip(above, path))  # noqa: B905
        _demand(is_path, request, f"commits {tuple(path)}, which is no path of its tree")
        cached = self._cached[request.id]
        cached += [pending, *(tree.tokens[node] for node in path)]
        self._reserved[request.id] = min(self._reserved[request.id], len(cached) + 1)

    def rewind(self, request: Request, num_tokens: int) -> bool:
        """See `Target`: it always can."""
        cached = self._cached[request.id]
        _demand(request.num_prompt_tokens - 1 <= num_tokens <= len(cached), request, "is rewound to where it never was")
        del cached[num_tokens:]
        self._reserved[request.id] = min(self._reserved[request.id], num_tokens + 1)
        return True

    def free(self, request: Request) -> None:
        """See `Target`."""
        for table in (self._reserved, self._cached, self._scored):
            table.pop(request.id, None)

    def numerics(self) -> dict[str, Any]:
        """See `Target`."""
        return {"path": "scripted", "device": "cpu"}

    def model_digest(self) -> str:
        """See `Target`: scripts are all alike."""
        return "scripted"

    def memory(self) -> dict[str, int]:
        """See `Target`."""
        return {"weight_bytes": 0, "pool_bytes": 0, "peak_bytes": 0}

    def _score(self, request: Request, tree: DraftTree) -> NDArray[np.float32]:
        cached = self._cached.get(request.id)
        _demand(cached == request.tokens[:-1], request, f"is scored over {cached}, not over tokens[:-1]")
        room = self._reserved[request.id] - len(request.tokens) + 1
        _demand(len(tree) < room, request, f"brings {len(tree) + 1} rows where there is room for {room}")
        self._scored[request.id] = (request.tokens[-1], tree)
        histories = [tuple(request.tokens)]
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            histories.append((*histories[parent + 1], token))
        return np.stack([self.logits(history) for history in histories])


class ScriptedDrafter(BaseDrafter):
    """Proposes what a script says: a function of the request and its draft nodes, or proposals in their order.

    A proposal is a `DraftTree`, passed on as it is, or tokens for a chain, cut to the limits. A script that
    has run out proposes nothing.
    """

    name = "scripted"

    def __init__(self, script: Script = ()) -> None:
        self.outcomes: list[StepOutcome] = []  # what it has observed
        self.active: set[int] = set()  # ids of requests started and not finished
        self.is_closed = False
        self._script = script if callable(script) else _in_order(iter(script))

    @classmethod
    def perfect(cls, target: ScriptedTarget) -> Self:
        """A drafter that is always right: it copies the request's law and asks the target."""
        return cls(lambda request, budget: _foretold(target, request, budget))

    @classmethod
    def adversarial(cls, target: ScriptedTarget, right: int = 0) -> Self:
        """A drafter whose first `right` tokens of every chain are the target's own, and the next is not."""

        def script(request: Request, budget: int) -> Proposal:
            tokens = _foretold(target, request, budget)
            return [t if i < right else (t + 1) % target.vocab_size for i, t in enumerate(tokens)]

        return cls(script)

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        self.active.add(request.id)
        return True

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """The script's next proposal."""
        proposal = self._script(request, limits.max_nodes)
        if isinstance(proposal, DraftTree):
            return proposal
        return chain(proposal[: min(limits.max_nodes, limits.max_depth)], self.name)

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`."""
        self.outcomes.append(outcome)

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self.active.discard(request.id)

    def close(self) -> None:
        """See `Drafter`."""
        self.is_closed = True


def chain(tokens: Sequence[int], source: str = "scripted") -> DraftTree:
    """A draft tree without branches, all of whose scores are 1."""
    size = len(tokens)
    return DraftTree(tuple(tokens), tuple(range(-1, size - 1)), (1.0,) * size, (source,) * size)


def _foretold(target: ScriptedTarget, request: Request, count: int) -> list[int]:
    """The next `count` tokens that the target will choose, up to the request's limit; stops are not seen."""
    params = request.sampler.params
    law = copy.deepcopy(request.sampler, {id(params): params})  # frozen: most of what there is to copy
    history = list(request.tokens)
    for _ in range(min(count, request.num_remaining)):
        history.append(law.sample(target.logits(history)).token)
        law.advance(history[-1])
    return history[len(request.tokens) :]


def _in_order(proposals: Iterator[Proposal]) -> Callable[[Request, int], Proposal]:
    return lambda request, budget: next(proposals, ())


def _demand(holds: bool, request: Request, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"request {request.id} {otherwise}")
