"""vLLM's requests followed as requests of ours, so that drafters and pacer see what they see in our engine.

vLLM's arrays are the truth: what stands in them is copied, whatever was foreseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.engine.request import Drafter, Request, StepOutcome, Terms, Token
from paceline.engine.tree import EMPTY, DraftTree
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.stream import TextStream, no_text
from paceline.vllm.facts import Facts
from paceline.vllm.hints import read_hints
from paceline.vllm.runner import Asked, Runner

_NO_LOGITS = np.empty((0, 0), np.float32)  # vLLM shows none


@dataclass(eq=False, slots=True)
class Followed:
    """A request of vLLM's."""

    request: Request
    tree: DraftTree = EMPTY  # drafted for its next step

    def take(self, tokens: Sequence[int]) -> StepOutcome:
        """What its step came to, from the tokens that vLLM has appended."""
        request, tree = self.request, self.tree
        num_accepted = min(_agreement(tree.tokens, tokens), len(tokens) - 1)
        accepted = tree.sources[:num_accepted]
        sources = [*accepted, *["target"] * (len(tokens) - num_accepted)]
        request.tokens += tokens
        has_ended = not request.end_token_ids.isdisjoint(tokens)
        request.finish_reason = "stop" if has_ended else "length" if request.num_remaining <= 0 else None
        emitted = tuple([Token(token, "", source, 0.0, 0.0) for token, source in zip(tokens, sources, strict=True)])
        outcome = StepOutcome(request, tree, tuple(range(num_accepted)), emitted, _NO_LOGITS)
        request.stats.observe(list(tree.sources), list(accepted), len(emitted), outcome.num_evaluated_drafts)
        return outcome


def _agreement(drafts: Sequence[int], tokens: Sequence[int]) -> int:
    pairs = zip(drafts, tokens, strict=False)
    return next((i for i, (draft, token) in enumerate(pairs) if draft != token), min(len(drafts), len(tokens)))


class Following:
    """All requests that vLLM has.

    Args:
        runner: a view of its model runner.
        drafters: of each request.
        facts: about the engine.
    """

    def __init__(self, runner: Runner, drafters: Sequence[Drafter], facts: Facts) -> None:
        self._runner, self._drafters, self._facts = runner, drafters, facts
        self._known: dict[str, Followed | None] = {}  # by vLLM's id; None: not to be followed

    def gone(self) -> list[Request]:
        """Forget what vLLM has no more; which requests they were."""
        ended = [name for name in self._known if not self._runner.is_known(name)]
        return [one.request for name in ended if (one := self._known.pop(name)) is not None]

    def all(self) -> Iterable[Followed]:
        """Those that are followed."""
        return [one for one in self._known.values() if one is not None]

    def row(self, name: str, tokens: NDArray[np.integer[Any]]) -> tuple[Followed | None, list[int]]:
        """A row of the batch and the tokens that are new there: the request, taken up first if it is new."""
        if name not in self._known:
            asked = self._runner.asked(name)
            self._known[name] = None if asked is None else Followed(self._request(asked))
        one = self._known[name]
        if one is None:
            return None, []
        return one, tokens[len(one.request.tokens) :].tolist()

    def _request(self, asked: Asked) -> Request:
        prompt = list(asked.prompt)
        room = max(self._facts.max_length - len(prompt), 1)
        params = SamplingParams(max_tokens=room if asked.max_tokens is None else min(asked.max_tokens, room))
        sampler = Sampler(params, SamplerContext(self._facts.vocab_size), prompt, 0)
        text = TextStream(no_text, prompt, ())
        hints = read_hints(asked.extra, self._facts.tokenizer)
        terms = Terms(num_speculative_tokens=self._facts.num_drafts)
        return Request(prompt, sampler, text, asked.end_token_ids, self._drafters, hints=hints, terms=terms)
