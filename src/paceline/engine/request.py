"""One request on its way: its tokens, its sampler, its text. Only `Request.commit` appends tokens.

It alone knows about stop strings, end-of-sequence tokens and limits. Knows nothing of models or caches.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from paceline.engine.continuations import Continuations
from paceline.engine.seen import Pictures
from paceline.engine.stats import Stats
from paceline.engine.stopping import Stopped, StopWhen, Watch
from paceline.engine.trace import StepRecord
from paceline.engine.tree import MAX_DEPTH, DraftTree
from paceline.errors import PacelineError, RequestError
from paceline.sampling.logprobs import PromptLogprob, prompt_logprobs
from paceline.sampling.sampler import SampledToken, Sampler
from paceline.text.stream import TextStream

WARM_UP = (
    "\0warm-up"  # the tenant of made-up requests, that drafters are tried out with: what they learn drafts for no one
)

_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Hints:
    """What a caller tells drafters. It changes the speed and nothing else."""

    prediction: tuple[int, ...] = ()  # tokens of what the output will probably be
    tenant: str = ""  # nothing learnt from one tenant's text drafts for another
    source: tuple[int, ...] = ()  # what the request reads, in the output's tokens


NO_HINTS = Hints()


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a request is served. Its tokens do not depend on them, only when they come and where they end."""

    deadline: float | None = None  # seconds of the engine's clock: what has been decoded by then is all there is
    num_speculative_tokens: int | None = None  # most draft nodes of this request in a step
    stop_when: StopWhen | None = None  # ends the output where it says so


NO_TERMS = Terms()


@dataclass(slots=True)
class Times:
    """When things happened to a request, in seconds of the engine's clock; None until they have."""

    arrived: float | None = None
    admitted: float | None = None  # the last time that it was
    first_token: float | None = None
    finished: float | None = None


# Takes the position of the first of some rows, and the logits (rows, V) float32 behind each of them.
PromptLogits = Callable[[int, NDArray[np.float32]], None]


def fresh_tenant() -> str:
    """A tenant that nobody else is, and that has asked for nothing yet: what it reads is in no cache."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Token:
    """One emitted token. `text` may be empty while a character or a stop string is incomplete."""

    id: int
    text: str
    source: str  # the drafter that proposed it, or "target"
    logprob: float
    entropy: float
    top: tuple[tuple[int, float], ...] = ()
    margin: float = math.inf  # as in `SampledToken`
    logit: float = 0.0


class Request:
    """One sample of one prompt. The engine steps it; the facade reads `outbox` until `finish_reason` is set."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        text: TextStream,
        end_token_ids: frozenset[int],
        drafters: Sequence[Drafter] = (),
        seed: int = 0,
        hints: Hints = NO_HINTS,
        terms: Terms = NO_TERMS,
        source: Sequence[int] = (),
        pictures: Pictures | None = None,
        given: Continuations | None = None,
    ) -> None:
        self.id = next(_ids)
        self.tokens = list(prompt)
        self.source = tuple(source)  # what an encoder-decoder reads beside its prompt, which then begins the output
        self.pictures = pictures  # in its prompt
        self.given = given  # continuations to read: then nothing is decoded, and what is committed is part of one
        self.num_prompt_tokens = len(prompt)
        self.sampler = sampler
        self.params = sampler.params
        assert self.params.max_tokens is not None, "the facade resolves it"
        self.max_tokens = self.params.max_tokens
        self.drafters = tuple(drafters)  # those that may be asked
        self.listeners = self.drafters  # those that are told of its end
        self.seed = seed
        self.hints = hints
        self.terms = terms
        self.times = Times()
        self.outbox: deque[Token] = deque()  # filled by commit, emptied by whoever streams
        self.finish_reason: str | None = None  # "stop", "length", "abort", or "error"
        self.stop_reason: str | int | None = None  # what ended it: a stop string, a token, "deadline" ...; else None
        self.stopped: Stopped | None = None  # where and why, if `stop_when` did
        wants_prompt = self.params.prompt_logprobs is not None
        # Of each token of the prompt, the first's being None; None if nobody asked. Filled as the prompt is read.
        self.prompt_logprobs: list[PromptLogprob | None] | None = [None] * len(prompt) if wants_prompt else None
        # Told the prompt's logits while it is read, then None.
        self.on_prompt_logits: PromptLogits | None = self._keep_prompt if wants_prompt else None
        self.error: PacelineError | None = None  # why, if "error"; raised to whoever reads
        self.is_cancelled = False  # its caller has given it up
        self._cancelled_by: PacelineError | None = None
        self.stats = Stats(num_prompt_tokens=self.num_input_tokens)
        self.trace: list[StepRecord] = []  # one per step, by the engine
        self._watch = None if terms.stop_when is None else Watch(terms.stop_when)
        self._text = text
        self.end_token_ids = end_token_ids

    @property
    def reads_hidden_states(self) -> bool:
        """True if one of its drafters reads the target's: their context is kept from its first token on."""
        return any(getattr(drafter, "reads_hidden_states", False) for drafter in self.drafters)

    @property
    def num_input_tokens(self) -> int:
        """Tokens that are read for it: its source and its prompt."""
        return len(self.source) + self.num_prompt_tokens

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.max_tokens - self.num_output_tokens

    @property
    def num_given(self) -> int:
        """Rows of given continuations that are to be read behind its prompt."""
        return 0 if self.given is None else self.given.num_unread

    @property
    def text(self) -> str:
        """The text so far, without what is held back."""
        return self._text.text

    def commit(self, sampled: Sequence[SampledToken], sources: Sequence[str]) -> tuple[Token, ...]:
        """The tokens emitted: all of `sampled`, or those up to and including the first that ends the request."""
        emitted: list[Token] = []
        reason = None
        for token, source in zip(sampled, sources, strict=True):
            emitted_token, reason = self._append(token, source)
            emitted.append(emitted_token)
            if reason is not None:
                break
        self.outbox.extend(emitted)
        self.finish_reason = reason  # last: to a reader in another thread it says that the outbox is complete
        return tuple(emitted)

    def fail(self, error: PacelineError) -> None:
        """End the request without a further token."""
        self.error, self.finish_reason = error, "error"

    def cancel(self, error: PacelineError | None = None) -> None:
        """Have the engine let go of it before its next step, from any thread; `error` is what its reader is told."""
        self._cancelled_by, self.is_cancelled = error, True

    def cut(self, stop_reason: str | None) -> None:
        """End the request as if its limit were here; its text is then whole, also what was held back."""
        self._text.finish()
        self.stop_reason, self.finish_reason = stop_reason, "length"

    def abandon(self) -> None:
        """End the request where it is, if it has not ended."""
        if self.finish_reason is None and self._cancelled_by is not None:
            self.fail(self._cancelled_by)
        self.finish_reason = self.finish_reason or "abort"

    def _append(self, sampled: SampledToken, source: str) -> tuple[Token, str | None]:
        """One more token, and why the request ends with it if it does."""
        self.tokens.append(sampled.token)
        late_enough = self.num_output_tokens > self.params.min_tokens
        text, stop = self._text.push(sampled.token, check_stop=late_enough)
        reason = None
        if stop is not None or sampled.token in self.end_token_ids or self._ends_its_grammar():
            reason = "stop"
            self.stop_reason = sampled.token if stop is None and sampled.token in self.params.stop_token_ids else stop
        elif self.num_remaining == 0:
            reason = "length"
        about = (sampled.logprob, sampled.entropy, sampled.top, sampled.margin, sampled.logit)
        token = Token(sampled.token, text, source, *about)
        if self._watch is not None:
            reason = self._watched(token, late_enough and reason is None) or reason
        if reason is not None and stop is None:
            token = replace(token, text=text + self._text.finish())
        return token, reason

    def _watched(self, token: Token, may_stop: bool) -> str | None:
        """Why the request ends with a token by its own rule, if it does; a rule that fails ends it too."""
        assert self._watch is not None
        try:
            self.stopped = self._watch.see(token, may_stop)
        except RequestError as error:
            self.error = error
            return "error"
        if self.stopped is not None:
            self.stop_reason = self._watch.name
        return None if self.stopped is None else "stop"

    def _keep_prompt(self, first: int, logits: NDArray[np.float32]) -> None:
        """Note what the model thought of the prompt's tokens behind some rows; rows behind the prompt say nothing."""
        assert self.prompt_logprobs is not None
        start, end = first + 1, min(first + 1 + len(logits), self.num_prompt_tokens)
        rows = logits[: max(end - start, 0)]
        thoughts = prompt_logprobs(rows, self.tokens[start : start + len(rows)], self.params.prompt_logprobs or 0)
        self.prompt_logprobs[start : start + len(rows)] = thoughts

    def _ends_its_grammar(self) -> bool:
        return self.sampler.end is not None and len(self.tokens) >= self.sampler.end


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step did for one request, told to drafters and statistics after the commit."""

    request: Request
    tree: DraftTree
    path: tuple[int, ...]  # accepted nodes, from the root down
    tokens: tuple[Token, ...]  # emitted: the accepted drafts and one more, unless a stop cut them
    logits: NDArray[np.float32]  # (nodes + 1, V) the target's: row 0 the pending token's, row i + 1 node i's

    @property
    def num_accepted_drafts(self) -> int:
        """Accepted draft tokens that were emitted; the correction or bonus token is never counted."""
        return min(len(self.path), len(self.tokens))

    @property
    def num_evaluated_drafts(self) -> int:
        """Places where drafts were put to the test: the accepted ones, and one more where none was right."""
        if len(self.tokens) <= len(self.path):  # a stop ended the request with a draft
            return len(self.tokens)
        last = self.path[-1] if self.path else -1
        return len(self.path) + (last in self.tree.parents)


@dataclass(frozen=True)
class Environment:
    """What a drafter may know of the engine it joins."""

    tokenizer: Any  # the target's, or None
    vocab_size: int
    device: str
    draft_model: Any = None  # a small model known to draft for the target: a name, a folder, or a model in memory
    host: Any = None  # the target for heads that read its hidden states (model/hosting.py); None if it takes none
    head: Any = None  # a head known for the target: a folder, or one in memory
    head_kind: str = ""  # the name of the drafter that runs it


@dataclass(frozen=True, slots=True)
class DraftLimits:
    """How far a drafter may look ahead for one request."""

    max_nodes: int
    max_depth: int = MAX_DEPTH  # that at most
    # Tokens: a further level of depth that should bring fewer is not worth its time. What a level should bring is the
    # sum of its nodes' path probabilities, by the drafter's own scores.
    min_gain: float = 0.0


class Drafter(Protocol):
    """Proposes what the target may say. It can be anything at all: exactness never depends on it.

    It need not be asked at every step, and reads what it has missed in `request.tokens` when it is asked.
    """

    @property
    def name(self) -> str:
        """What statistics call it; no two drafters of an engine share one."""

    def attach(self, environment: Environment) -> None:
        """Join an engine; called once, before any request."""

    def start(self, request: Request) -> bool:
        """Take up a request, without reading it yet; False if there is nothing for this drafter to do."""

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """One tree per request, of at most `limits[i].max_nodes` nodes; an empty one is always allowed.

        Nodes deeper than `max_depth` are dropped. Who takes more time the deeper it looks keeps to `min_gain` too.
        """

    def observe(self, outcome: StepOutcome) -> None:
        """Learn from a committed step in which it was asked."""

    def finish(self, request: Request) -> None:
        """Forget a request: at its end, when it is aborted, and also if it was never started."""

    def close(self) -> None:
        """Release what the drafter holds."""
