"""The half of the facade that judges what is given to it: `score`, `decide`, and the same for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, SupportsIndex, overload

from typing_extensions import Unpack

from paceline.deciding.calibration import Calibration
from paceline.deciding.decision import Decision
from paceline.deciding.rule import Rule, read_rule
from paceline.engine.request import Request
from paceline.provenance import model_fingerprint
from paceline.questions import Question, question
from paceline.runtime import Runtime
from paceline.scores import Score
from paceline.scoring import Cut, ScoreOptions, Scoring, read_options
from paceline.streams import adecode, decode
from paceline.text.prompts import Prompt

Single = str | Mapping[str, Any] | Iterable[SupportsIndex]  # one prompt
Choices = Iterable[str | Sequence[str]]
Calibrated = Calibration | str | PathLike[str] | None
Ends = str | Sequence[str] | None


class Judging:
    """What an `LLM` thinks of texts."""

    _runtime: Runtime

    @overload
    def score(  # type: ignore[overload-overlap]  # a str is an iterable of strs too
        self,
        prompts: Single,
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

    @overload
    def decide(  # type: ignore[overload-overlap]
        self,
        prompts: Single,
        choices: Choices,
        *,
        abstain: float | None = None,
        calibration: Calibrated = None,
        end: Ends = None,
        **options: Unpack[ScoreOptions],
    ) -> Decision: ...
    @overload
    def decide(
        self,
        prompts: Iterable[Prompt],
        choices: Choices,
        *,
        abstain: float | None = None,
        calibration: Calibrated = None,
        end: Ends = None,
        **options: Unpack[ScoreOptions],
    ) -> list[Decision]: ...
    def decide(
        self,
        prompts: Any,
        choices: Any,
        *,
        abstain: float | None = None,
        calibration: Calibrated = None,
        end: Ends = None,
        **options: Unpack[ScoreOptions],
    ) -> Any:
        """Which of some choices goes on a prompt, by the model's probabilities of them as texts; or an abstention.

        The probability of a choice is that of all its spellings together. What begins with several spellings belongs
        to the longest: "New" has what "New York" has not. Probabilities are given that one of the choices is said.

        Args:
            prompts: as in `score`: one gives a `Decision`, a list of them a list.
            choices: at least two, the same for each prompt: a text stands for itself, with and without a space before
                it; a list for each of its texts, and its name is the first.
            abstain: the least probability of what is chosen, from 0 to 1; None never abstains.
            calibration: what `paceline calibrate` learnt for this model, or its file: a temperature and a threshold.
            end: texts of which one has to follow a choice, or the end of the sequence; `[]` is that alone, and None
                takes whatever follows. Only what a single token begins with can be told.
            **options: as in `score`.

        Raises:
            ConfigError: a threshold out of range, a calibration of another model or of other choices.
            RequestError: choices that cannot be told apart.
            ContextLengthError, DeadlineError, EngineError, StateError: as in `score`.
        """
        rule, (questions, is_batch) = self._asked(prompts, choices, (abstain, calibration, end), options)
        decode(self._runtime.thread, _requests([one.cuts.values() for one in questions]), None)
        return _decisions(rule, questions, is_batch)

    async def adecide(
        self,
        prompts: Any,
        choices: Choices,
        *,
        abstain: float | None = None,
        calibration: Calibrated = None,
        end: Ends = None,
        **options: Unpack[ScoreOptions],
    ) -> Any:
        """`decide` in a coroutine; a task that is cancelled ends its own requests alone."""
        how = (abstain, calibration, end)
        rule, (questions, is_batch) = await asyncio.to_thread(self._asked, prompts, choices, how, options)
        await adecode(self._runtime.thread, _requests([one.cuts.values() for one in questions]), None)
        return _decisions(rule, questions, is_batch)

    def _asked(
        self, prompts: Any, choices: Any, how: tuple[Any, Any, Any], options: Mapping[str, Any]
    ) -> tuple[Rule, tuple[list[Question], bool]]:
        self._runtime.thread.check()
        call, rule, scoring = read_options(options), read_rule(choices, *how), self._scoring
        if rule.calibration is not None:
            rule.calibration.check(self.model_fingerprint, rule.names)
        texts, is_batch = scoring.prompts(prompts)
        return rule, ([question(scoring, text, rule.choices, rule.end, call) for text in texts], is_batch)

    @property
    def model_fingerprint(self) -> str:
        """16 hexadecimal digits for the weights (read at the first call) and settings, wherever the model is run."""
        return model_fingerprint(self._runtime.loaded.target.model_digest())

    @property
    def _scoring(self) -> Scoring:
        loaded = self._runtime.loaded
        return Scoring(loaded.target, loaded.tokenizer)


def _requests(cuts: Iterable[Iterable[Cut]]) -> list[Request]:
    return list({cut.request.id: cut.request for one in cuts for cut in one}.values())


def _scores(cuts: Sequence[Sequence[Cut]], is_batch: bool) -> list[Score] | list[list[Score]]:
    scores = [[cut.score() for cut in one] for one in cuts]
    return scores if is_batch else scores[0]


def _decisions(rule: Rule, questions: Sequence[Question], is_batch: bool) -> Decision | list[Decision]:
    decisions = [rule.decide(one.logprobs()) for one in questions]
    return decisions if is_batch else decisions[0]
