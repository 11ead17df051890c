"""The half of the facade that judges what is given to it: `score`, and the same for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, overload

from typing_extensions import Unpack

from paceline.engine.request import Request
from paceline.runtime import Runtime
from paceline.scores import Score
from paceline.scoring import Cut, ScoreOptions, Scoring, read_options
from paceline.streams import adecode, decode
from paceline.text.prompts import Prompt


class Judging:
    """What an `LLM` thinks of texts."""

    _runtime: Runtime

    @overload
    def score(  # type: ignore[overload-overlap]  # a str is an iterable of strs too
        self,
        prompts: str | Mapping[str, Any] | Iterable[SupportsIndex],
        continuations: Iterable[Prompt],
        **options: Unpack[ScoreOptions],
    ) -> list[Score]: ...
    @overload
    def score(
        self, prompts: Iterable[Prompt], continuations: Iterable[Iterable[Prompt]], **options: Unpack[ScoreOptions]
    ) -> list[list[Score]]: ...
    def score(self, prompts: Any, continuations: Any, **options: Unpack[ScoreOptions]) -> Any:
        """The model's log-probabilities of continuations of a prompt: one `Score` each, in their order.

        All continuations of a prompt are one tree behind it, read in as few forwards as rows allow, what they begin
        with in common once. The bits are those of scoring each alone, and of what `generate` reports of its tokens.
        A text is cut at the seam as lm-evaluation-harness does it: spaces at the prompt's end are the continuation's.

        Args:
            prompts: a text or token ids, or a list of prompts, which are read together and answered with a list each.
            continuations: of a prompt: texts or token ids; of a list of prompts, such a list for each. Behind a prompt
                of token ids a text is read alone, without special tokens.
            **options: `tenant`, `add_special_tokens` and `deadline_ms`, as in `generate`.

        Raises:
            ConfigError: an option that there is not.
            ContextLengthError: a continuation that does not fit into the context behind its prompt, or into the cache.
            DeadlineError: the deadline cannot be met, or was not.
            RequestError: nothing to score, or a text that has no token of its own.
            EngineError, StateError: as in `generate`.
        """
        self._runtime.thread.check()
        call = read_options(options)
        cuts, is_batch = self._scoring.cuts_of(prompts, continuations, call)
        decode(self._runtime.thread, _requests(cuts), None)
        return _scores(cuts, is_batch)

    async def ascore(self, prompts: Any, continuations: Any, **options: Unpack[ScoreOptions]) -> Any:
        """`score` in a coroutine; a task that is cancelled ends its own requests alone."""
        self._runtime.thread.check()
        call = read_options(options)
        cuts, is_batch = await asyncio.to_thread(self._scoring.cuts_of, prompts, continuations, call)
        await adecode(self._runtime.thread, _requests(cuts), None)
        return _scores(cuts, is_batch)

    @property
    def _scoring(self) -> Scoring:
        loaded = self._runtime.loaded
        return Scoring(loaded.target, loaded.tokenizer)


def _requests(cuts: Sequence[Sequence[Cut]]) -> list[Request]:
    return list({cut.request.id: cut.request for one in cuts for cut in one}.values())


def _scores(cuts: Sequence[Sequence[Cut]], is_batch: bool) -> list[Score] | list[list[Score]]:
    scores = [[cut.score() for cut in one] for one in cuts]
    return scores if is_batch else scores[0]
