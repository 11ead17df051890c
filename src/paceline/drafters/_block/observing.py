"""A block head's anchors: what it said of a block, and then, step by step, what the target said in its place."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._block.growing import Drawn, Growth
from paceline.engine.request import WARM_UP, Request, StepOutcome
from paceline.heads.weights import Floats, Weights
from paceline.learning.anchors import Anchor
from paceline.learning.service import Learning

_NOTED = 0.5  # of what learning may take: the share that noting anchors may


class BlockPupil:
    """See `Pupil`.

    Args:
        own: the head's own.
        num_slots: those of a block that propose.
    """

    margin = 0.0  # learnt weights are of the same shapes: a proposal takes as long with them

    def __init__(self, own: Weights, num_slots: int) -> None:
        self.own, self.num_slots = own, num_slots
        self._installed: dict[str, Weights] = {}  # by tenant

    def install(self, tenant: str, weights: Weights) -> None:
        """See `Pupil`."""
        self._installed[tenant] = weights

    def weights(self, tenant: str) -> Weights:
        """See `Pupil`."""
        return self._installed.get(tenant, self.own)

    def forget(self, tenant: str) -> None:
        """See `Pupil`."""
        self._installed.pop(tenant, None)

    @property
    def identity(self) -> str:
        """What tells the head's transition from others."""
        hashed = hashlib.sha256()
        for array in (self.own.w1, self.own.w2, self.own.joint):
            hashed.update(f"{array.shape}".encode() + array.tobytes())
        return hashed.hexdigest()


@dataclass
class _Open:
    """An anchor whose slots are not all answered yet."""

    position: int  # of the pending token
    drawn: list[Drawn]
    logits: Floats  # (B, K)
    rest: Floats  # (B,)
    features: Floats  # (B, F)
    tokens: list[int] = field(default_factory=list)  # those that came
    target: list[Floats] = field(default_factory=list)  # (K,) each


class Observer:
    """Has a head learn from its requests. What that takes while they decode is billed to learning as well.

    Args:
        pupil: the head.
        d2t: (num_logits,) the target's token of each of the head's; None where they are the same.
        clock: seconds.
    """

    def __init__(
        self, pupil: BlockPupil, d2t: NDArray[np.int64] | None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.learning = Learning(pupil, pupil.identity, clock)
        self._pupil, self._d2t, self._clock = pupil, d2t, clock
        self._open: dict[int, _Open] = {}  # by request
        self._began: float | None = None  # when the step did that is under way
        self._noted = 0.0  # seconds that anchors took while they came about

    def start(self, request: Request) -> None:
        """A request begins. One that is made up, or whose output has to follow a grammar, teaches nothing."""
        if request.hints.tenant != WARM_UP and request.sampler.grammar is None:
            stratum = "greedy" if request.params.is_greedy else "sampled"
            self.learning.start(request.id, request.hints.tenant, stratum)

    def begin_step(self) -> None:
        """Drafts are asked for."""
        self._began = self._clock()

    def wants(self, request: Request) -> bool:
        """Whether what the head says of a request now should become an anchor."""
        allowance = self.learning.allowance
        is_affordable = allowance.balance > 0.0 and self._noted < _NOTED * allowance.earned
        return is_affordable and request.id not in self._open and self.learning.wants(request.id)

    def drafted(self, request: Request, said: Floats) -> None:
        """Begin an anchor: what the slots (B, num_logits + F) said for a request."""
        with self._billed():
            growth = Growth(said, self._pupil.own, self._d2t)
            drawn = growth.chain(request)
            ids = np.stack([one.own for one in drawn])
            logits = np.take_along_axis(growth.logits, ids, 1)
            rest = _rest(growth.logits, logits, _temperature(request))
            self._open[request.id] = _Open(len(request.tokens) - 1, drawn, logits, rest, growth.features.copy())

    def observe(self, outcome: StepOutcome) -> None:
        """Fill the slots that a step has answered; what it took counts as busy."""
        if self._began is not None:
            self.learning.allowance.earn(self._clock() - self._began)
            self._began = None
        request = outcome.request
        if request.id not in self._open:
            return
        with self._billed():
            rows = [0, *(node + 1 for node in outcome.path)]
            first = len(request.tokens) - len(outcome.tokens)
            for place, (row, token) in enumerate(zip(rows, outcome.tokens, strict=False)):
                self._answer(request, first + place, token.id, outcome.logits[row])

    def finish(self, request: Request) -> None:
        """A request has ended: so do its anchors, with the slots that were answered."""
        self._close(request)
        self.learning.finish(request.id)

    def _answer(self, request: Request, position: int, token: int, logits: Floats) -> None:
        """Enter what came at a position, and the target's logits (V,) there. A gap ends the anchor before it."""
        anchor = self._open.get(request.id)
        if anchor is None:
            return
        if position == anchor.position + 1 + len(anchor.tokens):
            scaled = logits / np.float32(_temperature(request))
            anchor.target.append(np.exp(scaled[anchor.drawn[len(anchor.tokens)].tokens] - _log_sum(scaled)))
            anchor.tokens.append(token)
            if len(anchor.tokens) < len(anchor.drawn):
                return
        self._close(request)

    def _close(self, request: Request) -> None:
        anchor = self._open.pop(request.id, None)
        if anchor is not None and anchor.tokens:
            self.learning.observe(self._made(request, anchor))

    def _made(self, request: Request, anchor: _Open) -> Anchor:
        count, temperature = len(anchor.tokens), _temperature(request)
        drawn = anchor.drawn[:count]
        before = np.array([request.tokens[anchor.position], *anchor.tokens[:-1]])
        is_it = np.stack([one.tokens for one in drawn]) == np.array(anchor.tokens)[:, None]
        scores, logits = np.stack([one.scores for one in drawn]), anchor.logits[:count]
        return Anchor(
            request=request.id,
            position=anchor.position,
            temperature=temperature,
            before=np.where(before < len(self._pupil.own.w1), before, 0),  # as `Weights.step` reads them
            came=np.where(is_it.any(1), is_it.argmax(1), -1),
            ids=np.stack([one.own for one in drawn]),
            logits=logits,
            rest=anchor.rest[:count],
            features=anchor.features[:count],
            target=np.stack(anchor.target),
            noise=(scores - logits / temperature).astype(np.float32),
        )

    @contextmanager
    def _billed(self) -> Iterator[None]:
        started = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - started
            self.learning.allowance.bill(seconds)
            self._noted += seconds


def _temperature(request: Request) -> float:
    """That of the law that is learnt: 1 of a greedy request."""
    return 1.0 if request.params.is_greedy else request.params.temperature


def _rest(logits: Floats, candidates: Floats, temperature: float) -> Floats:
    """(B,) log-sum-exp, at a temperature, of logits (B, num_logits) without the candidates (B, K) among them."""
    whole, some = (_log_sum(rows / np.float32(temperature)) for rows in (logits, candidates))
    return np.asarray(whole + np.log(np.maximum(-np.expm1(some - whole), 1e-6)))


def _log_sum(values: Floats) -> Floats:
    """log(sum(exp(values))) over the last dimension."""
    peaks = values.max(-1, keepdims=True)
    return np.asarray(peaks[..., 0] + np.log(np.exp(values - peaks).sum(-1)))
