"""From what a caller gives to requests, and from a finished request to its output. Callers' threads run this."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from paceline.engine.ports import Target
from paceline.engine.request import Drafter, Hints, Request, Token
from paceline.errors import RequestError
from paceline.options import Call
from paceline.output import Origin, Output
from paceline.params import SamplingParams
from paceline.sampling.grammar import Compiler
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.prompts import as_prompt
from paceline.text.stream import TextStream, no_text
from paceline.text.tokenizer import Tokenizer, eos_ids


class RequestFactory:
    """Makes requests for one target.

    Args:
        target: the model.
        tokenizer: the model's; without one, prompts are token ids and texts are empty.
        name: what outputs call the model.
    """

    def __init__(self, target: Target, tokenizer: Tokenizer | None, name: str = "") -> None:
        self._target, self._tokenizer, self._name = target, tokenizer, name
        self.grammars = Compiler(tokenizer.definition if tokenizer else None, target.vocab_size)
        self._decode = tokenizer.decode if tokenizer else no_text

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            RequestError: it has none.
        """
        if self._tokenizer is None:
            raise RequestError("this model has no tokenizer; allowed: prompts of token ids")
        return self._tokenizer

    def ids(self, prompt: str | list[int]) -> list[int]:
        """The token ids of a prompt."""
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt

    def hints(self, call: Call) -> Hints:
        """What a call tells drafters."""
        if call.prediction is None:
            return Hints((), call.tenant)
        return Hints(tuple(self.ids(as_prompt(call.prediction, "prediction"))), call.tenant)

    def requests(
        self, prompt: str | list[int], params: SamplingParams, drafters: Sequence[Drafter], hints: Hints
    ) -> list[Request]:
        """One request for each sample of a prompt.

        Raises:
            RequestError: the prompt is empty, does not fit, or has tokens that the model has not.
        """
        ids = self.ids(prompt)
        room = min(self._target.max_length, self._target.capacity)
        params, max_tokens = params.resolved(len(ids), room), params.limit(len(ids), room)
        self._check(ids, params, max_tokens)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        eos = eos_ids(self._tokenizer, getattr(self._target, "generation_config", None))
        words = tuple(w for word in params.bad_words for w in self.tokenizer.spellings(word))
        context = SamplerContext(self._target.vocab_size, eos, words)
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
        return [
            Request(
                ids,
                Sampler(params, context, ids, seed, sample, self.grammars.start(params, eos, max_tokens)),
                TextStream(self._decode, ids, params.stop),
                ends,
                drafters,
                seed,
                hints,
            )
            for sample in range(params.n)
        ]

    def output(self, request: Request, tokens: Sequence[Token]) -> Output:
        """What a request that has ended came to; `tokens` are those that its reader has taken."""
        assert request.finish_reason is not None
        prompt, emitted = request.tokens[: request.num_prompt_tokens], request.tokens[request.num_prompt_tokens :]
        stats = replace(request.stats, numerics=self._target.numerics(), memory=self._target.memory())
        origin = Origin(self._name, tuple(prompt), request.params, self._decode)
        steps = tuple(request.trace)
        reason = request.finish_reason
        return Output(request.text, tuple(emitted), tuple(tokens), reason, request.seed, stats, steps, origin)

    def _check(self, ids: Sequence[int], params: SamplingParams, max_tokens: int) -> None:
        if not ids:
            raise RequestError("the prompt is empty; allowed: at least one token")
        vocab, room, cache = self._target.vocab_size, self._target.max_length, self._target.capacity
        bad = [t for t in (*ids, *params.stop_token_ids, *(params.logit_bias or {})) if not 0 <= t < vocab]
        if bad:
            raise RequestError(f"token id {bad[0]} is outside the vocabulary; allowed: 0 to {vocab - 1}")
        wanted = f"prompt ({len(ids)} tokens) and max_tokens ({max_tokens}) exceed"
        if len(ids) + max_tokens > room:
            raise RequestError(f"{wanted} the model's context of {room}")
        if len(ids) + max_tokens > cache:
            raise RequestError(f"{wanted} the cache, which holds {cache}; load with more cache_tokens")
