"""From prompts and continuations to requests, and from what has been read to scores. Callers' threads run this."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from paceline.engine.continuations import Continuations
from paceline.engine.ports import Target
from paceline.engine.request import Hints, Request
from paceline.errors import ConfigError, ContextLengthError, RequestError
from paceline.options import Call, read_call
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.scores import Score
from paceline.text.prompts import as_prompt, as_prompts
from paceline.text.seam import Given, cut_at_seam
from paceline.text.stream import TextStream, no_text
from paceline.text.tokenizer import Tokenizer, eos_ids


class ScoreOptions(TypedDict, total=False):
    """Keyword options of `score` and `decide`; each means what it means in `generate`."""

    tenant: str
    add_special_tokens: bool
    deadline_ms: float | None


def read_options(options: Mapping[str, Any]) -> Call:
    """Options, checked.

    Raises:
        ConfigError: an option that there is not, or whose value is not allowed.
    """
    known = ScoreOptions.__annotations__
    for name in options:
        if name not in known:
            raise ConfigError(f"there is no option {name!r} here; allowed: {', '.join(known)}")
    return read_call(None, options)


@dataclass(frozen=True)
class Cut:
    """A continuation as tokens, and the request that reads it."""

    text: str
    tokens: tuple[int, ...]
    request: Request

    def score(self) -> Score:
        """What the model thought of it, once the request has ended."""
        thoughts = self._given.of(self.tokens)
        logprobs = tuple(thought.logprob for thought in thoughts)
        return Score(self.text, self.tokens, logprobs, all(thought.is_likeliest for thought in thoughts))

    @property
    def logprob(self) -> float:
        """The same as its score's."""
        return self.score().logprob

    @property
    def end_logprob(self) -> float:
        """The log-probability that it ends there, in nats."""
        return self._given.end_of(self.tokens)

    @property
    def _given(self) -> Continuations:
        assert self.request.given is not None
        return self.request.given


class Scoring:
    """Makes requests whose continuations are given.

    Args:
        target: the model.
        tokenizer: the model's, if it has one.
    """

    def __init__(self, target: Target, tokenizer: Tokenizer | None) -> None:
        self._target, self._tokenizer = target, tokenizer

    def prompts(self, prompts: object) -> tuple[list[Given], bool]:
        """Prompts as callers write them, and whether there is a list of them.

        Raises:
            RequestError: something is no prompt, or not one that can be read here.
        """
        contents, is_batch = as_prompts(prompts)
        texts = [content for content in contents if isinstance(content, str | list)]
        if len(texts) < len(contents):
            raise RequestError("a prompt has pictures; allowed here: text or token ids alone")
        if self._target.reads is not None:
            raise RequestError("this model reads a source; allowed here: models that go on with their prompt")
        return texts, is_batch

    def cuts_of(self, prompts: object, continuations: Any, call: Call) -> tuple[list[list[Cut]], bool]:
        """For each prompt its continuations, and whether there is a list of prompts.

        Raises:
            ContextLengthError, RequestError: as in `LLM.score`.
        """
        texts, is_batch = self.prompts(prompts)
        several = _listed(continuations, "continuations") if is_batch else [continuations]
        if len(several) != len(texts):
            raise RequestError(f"there are {len(texts)} prompts and {len(several)} lists of continuations")
        return [self.cuts(*one, call) for one in zip(texts, several, strict=True)], is_batch

    def ends(self, texts: Sequence[str]) -> list[int]:
        """The tokens that begin with one of some texts, and those that end a sequence.

        Raises:
            RequestError: there are none of a text.
        """
        found = set(eos_ids(self._tokenizer, getattr(self._target, "generation_config", None)))
        for text in texts:
            beginning = [] if self._tokenizer is None else self._tokenizer.beginning_with(text)
            if not beginning:
                raise RequestError(f"no token begins with {text!r}; allowed as an end: what a token begins with")
            found.update(beginning)
        if not found:
            raise RequestError("the model has no token that ends a sequence; allowed: texts that end a choice")
        return sorted(found)

    def cuts(self, prompt: Given, continuations: Any, call: Call, ends: Sequence[int] = ()) -> list[Cut]:
        """The continuations of one prompt. Requests are as few as can be: one, but where contexts differ.

        `ends` are tokens whose probability behind each continuation is wanted too.
        """
        given = [as_prompt(c, f"continuations[{i}]") for i, c in enumerate(_listed(continuations, "continuations"))]
        if not given:
            raise RequestError("continuations is empty; allowed: at least one")
        pairs = [cut_at_seam(self._tokenizer, prompt, c, call.add_special_tokens) for c in given]
        requests: dict[tuple[int, ...], Request] = {}
        keys = [(*ids, bisect_left(self._target.contexts, self._reach(ids, behind))) for ids, behind in pairs]
        for key in dict.fromkeys(keys):
            group = [pair for pair, own in zip(pairs, keys, strict=True) if own == key]
            requests[key] = self._request(group[0][0], [behind for _, behind in group], call, ends)
        texts = [one if isinstance(one, str) else self._text(one) for one in given]
        return [
            Cut(text, tuple(behind), requests[key]) for text, (_, behind), key in zip(texts, pairs, keys, strict=True)
        ]

    def _reach(self, ids: Sequence[int], behind: Sequence[int]) -> int:
        """Up to which length rotary positions are those of: as of a request that would say the continuation."""
        return min(len(ids) + len(behind), self._target.contexts[-1])

    def _request(self, ids: list[int], continuations: list[list[int]], call: Call, ends: Sequence[int]) -> Request:
        self._check(ids, continuations, int(bool(ends)))
        params = SamplingParams(max_tokens=max(map(len, continuations)))
        sampler = Sampler(params, SamplerContext(self._target.vocab_size), ids, 0)
        text = TextStream(no_text, ids, ())
        hints, given = Hints((), call.tenant), Continuations(continuations, ends)
        return Request(ids, sampler, text, frozenset(), (), 0, hints, call.terms, given=given)

    def _check(self, ids: list[int], continuations: list[list[int]], num_behind: int) -> None:
        vocab, longest = self._target.vocab_size, max(map(len, continuations)) + num_behind
        bad = [t for tokens in (ids, *continuations) for t in tokens if not 0 <= t < vocab]
        if bad:
            raise RequestError(f"token id {bad[0]} is outside the vocabulary; allowed: 0 to {vocab - 1}")
        room = min(self._target.max_length, self._target.capacity)
        if len(ids) + longest - 1 > room:  # nothing is asked of the last token
            raise ContextLengthError(
                f"prompt ({len(ids)} tokens) and continuation ({longest}) are too long; "
                f"allowed: {room + 1} together, by the context of {self._target.max_length} and the cache"
            )

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids) if self._tokenizer is not None else ""


def _listed(value: Any, name: str) -> list[Any]:
    """The items of a list.

    Raises:
        RequestError: it is none.
    """
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise RequestError(f"{name} is {value!r}; allowed: a list")
    return list(value)
