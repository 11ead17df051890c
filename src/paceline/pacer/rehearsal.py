"""A drafter's own time, measured when it joins, when also what is prepared at first use is prepared."""

from __future__ import annotations

import random
from collections.abc import Callable

from paceline.law import LawContext, TargetLaw
from paceline.pacer.worth import DrafterCost
from paceline.params import SamplingParams
from paceline.request import Hints, Request
from paceline.text import TextStream
from paceline.tree import MAX_DEPTH
from paceline.types import Drafter

_TENANT = "\0rehearsal"  # nobody's: what drafters learn here drafts for no one
_WORDS = 16  # different tokens of the text, so that it repeats itself
_SHORT, _LONG = 24, 256  # tokens of the prompts
_PROPOSALS = 5
_STAGES = 4


def rehearse(drafter: Drafter, vocab_size: int, cost: DrafterCost, clock: Callable[[], float]) -> None:
    """Let `cost` learn from a few proposals for made-up requests, which the drafter forgets again.

    A drafter that has nothing to say about them, or fails, stays as it was believed: it will be judged at its work.
    """
    try:
        for length, num_proposals in ((_SHORT, _PROPOSALS), (_LONG, 1)):
            _propose(drafter, _request(length, vocab_size), num_proposals, cost, clock)
    except Exception:
        return


def _request(length: int, vocab_size: int) -> Request:
    tokens = random.Random(0).choices(range(min(_WORDS, vocab_size)), k=length)
    law = TargetLaw(SamplingParams(max_tokens=_PROPOSALS + MAX_DEPTH), LawContext(vocab_size), tokens, 0)
    return Request(tokens, law, TextStream(lambda ids: "", tokens, ()), frozenset(), hints=Hints(tenant=_TENANT))


def _propose(
    drafter: Drafter, request: Request, num_proposals: int, cost: DrafterCost, clock: Callable[[], float]
) -> None:
    try:
        unread = len(request.tokens)
        for _ in range(num_proposals if drafter.start(request) else 0):
            times = [clock()]
            for _, _ in zip(drafter.propose([request], [MAX_DEPTH // 4]), range(_STAGES), strict=False):
                times.append(clock())
            cost.learn(unread, times[1] - times[0], times[-1] - times[1], len(times) - 2)
            request.tokens.append(request.tokens[0])
            unread = 1
    finally:
        del request.tokens[request.num_prompt_tokens :]  # who remembers outputs finds none
        drafter.finish(request)
