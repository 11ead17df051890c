"""A drafter's own time, measured when it joins, when also what is prepared at first use is prepared."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from paceline.engine.ports import Target
from paceline.engine.request import Drafter, Hints, Request
from paceline.engine.tree import MAX_DEPTH
from paceline.pacing.worth import DrafterCost
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.stream import TextStream

_TENANT = "\0rehearsal"  # nobody's: what drafters learn here drafts for no one
_WORDS = 16  # different tokens of the text, so that it repeats itself
_SHORT, _LONG = 24, 256  # tokens of the prompts
_PROPOSALS = 5
_STAGES = 4
_SHORT_FORWARD = 0.02  # seconds


def displace(target: Target, seconds: float) -> None:
    """Leave the processor's caches as forwards do, full of weights: what is wanted next is read from memory.

    A forward is run for that effect if it takes few `seconds`; beside a long one it would not count.
    """
    if seconds < _SHORT_FORWARD:
        target.dry_run(1, 0)


def rehearse(drafter: Drafter, target: Target, plain: float, cost: DrafterCost, clock: Callable[[], float]) -> None:
    """Let `cost` learn from a few proposals for made-up requests, which the drafter forgets again.

    Each comes after a forward, as they do in decoding; `plain` is what one takes, in seconds.

    A drafter that has nothing to say about them, or fails, stays as it was believed: it will be judged at its work.
    """
    try:
        # The first proposal of all is not counted, for what is prepared at first use: so it is a long one.
        for length, num_proposals in ((_LONG, 1), (_SHORT, _PROPOSALS), (_LONG, 1)):
            request = _request(length, target.vocab_size)
            _propose(drafter, request, num_proposals, cost, clock, partial(displace, target, plain))
    except Exception:
        return


def _request(length: int, vocab_size: int) -> Request:
    tokens = random.Random(0).choices(range(min(_WORDS, vocab_size)), k=length)
    law = Sampler(SamplingParams(max_tokens=_PROPOSALS + MAX_DEPTH), SamplerContext(vocab_size), tokens, 0)
    return Request(tokens, law, TextStream(lambda ids: "", tokens, ()), frozenset(), hints=Hints(tenant=_TENANT))


def _propose(
    drafter: Drafter,
    request: Request,
    num_proposals: int,
    cost: DrafterCost,
    clock: Callable[[], float],
    prepare: Callable[[], None],
) -> None:
    try:
        unread = len(request.tokens)
        for _ in range(num_proposals if drafter.start(request) else 0):
            prepare()
            times = [clock()]
            for _, _ in zip(drafter.propose([request], [MAX_DEPTH // 4]), range(_STAGES), strict=False):
                times.append(clock())
            cost.learn(unread, times[1] - times[0], times[-1] - times[1], len(times) - 2)
            request.tokens.append(request.tokens[0])
            unread = 1
    finally:
        del request.tokens[request.num_prompt_tokens :]  # who remembers outputs finds none
        drafter.finish(request)
