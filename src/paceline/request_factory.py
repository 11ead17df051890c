"""From what a caller gives to requests, and from a finished request to its output. Callers' threads run this."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from paceline.engine.ports import Reading, Target
from paceline.engine.request import Drafter, Hints, Request, Token
from paceline.engine.seen import SeenIds
from paceline.errors import ContextLengthError, RequestError
from paceline.options import Call
from paceline.output import Origin, Output
from paceline.params import SamplingParams
from paceline.sampling.grammar import Compiler, Grammar
from paceline.sampling.sampler import SamplerContext
from paceline.text.pictures import Pictured
from paceline.text.prompts import Content, as_prompt
from paceline.text.source import expected_ids, forbidden_ids, output_start, source_ids
from paceline.text.stream import Decode, TextStream, no_text
from paceline.text.tokenizer import Tokenizer, eos_ids

See = Callable[[Pictured], SeenIds]


class RequestFactory:
    """Makes requests for one target.

    Args:
        target: the model.
        tokenizer: the model's; without one, prompts are token ids and texts are empty.
        name: what outputs call the model.
        see: has the model's processor read a prompt with pictures; None where the model takes none.
    """

    def __init__(self, target: Target, tokenizer: Tokenizer | None, name: str = "", see: See | None = None) -> None:
        self._target, self._tokenizer, self._name, self._see = target, tokenizer, name, see
        self.grammars = Compiler(tokenizer.definition if tokenizer else None, target.vocab_size)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            RequestError: it has none.
        """
        if self._tokenizer is None:
            raise RequestError("this model has no tokenizer; allowed: prompts of token ids")
        return self._tokenizer

    def ids(self, prompt: str | list[int], add_special_tokens: bool = True) -> list[int]:
        """The token ids of a prompt, those included that the tokenizer adds to a text."""
        return self.tokenizer.encode(prompt, add_special_tokens) if isinstance(prompt, str) else prompt

    def hints(self, call: Call) -> Hints:
        """What a call tells drafters."""
        if call.prediction is None:
            return Hints((), call.tenant)
        expected = as_prompt(call.prediction, "prediction")
        if self._target.reads is not None and isinstance(expected, str):
            return Hints(tuple(expected_ids(self.tokenizer, expected)), call.tenant)
        return Hints(tuple(self.ids(expected)), call.tenant)

    def requests(self, prompt: Content, call: Call, drafters: Sequence[Drafter], hints: Hints) -> list[Request]:
        """One request for each sample of a prompt.

        Raises:
            ContextLengthError: the prompt is too long.
            RequestError: the prompt is empty, does not fit with its output, or has tokens that the model has not.
        """
        if isinstance(prompt, Pictured):
            prompt = self.seen(prompt if call.add_special_tokens else replace(prompt, add_special_tokens=False))
        pictures = prompt.pictures if isinstance(prompt, SeenIds) else None
        if pictures is not None and call.truncate_prompt_tokens is not None:
            raise RequestError("truncate_prompt_tokens is given with pictures; allowed: the whole prompt")
        source, ids = self._read(prompt, call)
        room = min(self._context(len(ids)), self._capacity(source))
        params, max_tokens = call.params.resolved(len(ids), room), call.params.limit(len(ids), room)
        self._check(ids, params, max_tokens)
        self._check_room(len(ids), max_tokens, self._capacity(source))
        seed = secrets.randbits(63) if params.seed is None else params.seed
        eos = eos_ids(self._tokenizer, getattr(self._target, "generation_config", None))
        words = tuple(w for word in params.bad_words for w in self.tokenizer.spellings(word))
        if source:
            words += forbidden_ids(getattr(self._target, "generation_config", None))
        context = SamplerContext(self._target.vocab_size, eos, words)
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
        return [
            Request(
                ids,
                call.sampler(params, context, ids, seed, sample, self._grammar(params, eos, max_tokens)),
                TextStream(self.decode(params), ids, params.stop, params.include_stop_str_in_output),
                ends,
                drafters,
                seed,
                replace(hints, source=tuple(source)) if source and self._copies else hints,
                call.terms,
                source,
                pictures,
            )
            for sample in range(params.n)
        ]

    def seen(self, prompt: Pictured) -> SeenIds:
        """The token ids of a prompt with pictures, and these.

        Raises:
            RequestError: the model takes no pictures, or not these.
        """
        if self._see is None:
            raise RequestError("the prompt has pictures; allowed for this model: text alone")
        return self._see(prompt)

    def _read(self, prompt: str | list[int], call: Call) -> tuple[list[int], list[int]]:
        """The source of a request, empty where none is read, and the tokens that it goes on with."""
        reads, last = self._target.reads, slice(-(call.truncate_prompt_tokens or 0), None)
        if reads is None:
            if call.source_language is not None or call.target_language is not None:
                raise RequestError("source_language and target_language are given to a model that reads no source")
            return [], self.ids(prompt, call.add_special_tokens)[last]
        if isinstance(prompt, str):
            prompt = source_ids(self.tokenizer, prompt, call.source_language, call.add_special_tokens)
        source = prompt[last]
        self._check_source(source, reads)
        if call.output_start is not None:
            return source, list(call.output_start)
        generation = getattr(self._target, "generation_config", None)
        return source, output_start(generation, self._tokenizer, call.target_language)

    def _check_source(self, source: Sequence[int], reads: Reading) -> None:
        if not source:
            raise RequestError("the source is empty; allowed: at least one token")
        if len(source) > reads.max_length:
            raise ContextLengthError(f"the source has {len(source)} tokens; allowed: up to {reads.max_length}")
        bad = [t for t in source if not 0 <= t < reads.vocab_size]
        if bad:
            raise RequestError(f"token id {bad[0]} is outside the vocabulary; allowed: 0 to {reads.vocab_size - 1}")

    def _context(self, num_prompt_tokens: int) -> int:
        """Tokens that a request without a limit may come to: the shortest context with room for the usual limit."""
        wanted = num_prompt_tokens + (SamplingParams().max_tokens or 0)
        return next((length for length in self._target.contexts if length >= wanted), self._target.max_length)

    def _capacity(self, source: Sequence[int]) -> int:
        """Tokens of a request that the cache can hold beside its source."""
        page = self._target.reads.page_size if self._target.reads is not None else 1
        return self._target.capacity - -(-len(source) // page) * page

    @property
    def _copies(self) -> bool:
        return self._target.reads is not None and self._target.reads.is_shared

    def output(self, request: Request, tokens: Sequence[Token]) -> Output:
        """What a request that has ended came to; `tokens` are those that its reader has taken."""
        assert request.finish_reason is not None
        prompt, emitted = request.tokens[: request.num_prompt_tokens], request.tokens[request.num_prompt_tokens :]
        stats = replace(request.stats, numerics=self._target.numerics(), memory=self._target.memory())
        origin = Origin(self._name, tuple(prompt), request.params, self.decode(request.params))
        steps = tuple(request.trace)
        thoughts = None if request.prompt_logprobs is None else tuple(request.prompt_logprobs)
        return Output(
            request.text,
            tuple(emitted),
            tuple(tokens),
            request.finish_reason,
            request.seed,
            stats,
            steps,
            origin,
            request.stop_reason,
            thoughts,
            request.stopped,
        )

    def decode(self, params: SamplingParams) -> Decode:
        """Token ids to text, as parameters have it."""
        if self._tokenizer is None:
            return no_text
        return partial(self._tokenizer.decode, skip_special_tokens=params.skip_special_tokens)

    def _grammar(self, params: SamplingParams, eos: frozenset[int], max_tokens: int) -> Grammar | None:
        """The grammar that is asked for, at its start; none where nothing is decoded."""
        return self.grammars.start(params, eos, max_tokens) if max_tokens else None

    def _check(self, ids: Sequence[int], params: SamplingParams, max_tokens: int) -> None:
        if not ids:
            raise RequestError("the prompt is empty; allowed: at least one token")
        vocab = self._target.vocab_size
        named = (*params.stop_token_ids, *(params.allowed_token_ids or ()), *(params.logit_bias or {}))
        bad = [t for t in (*ids, *named) if not 0 <= t < vocab]
        if bad:
            raise RequestError(f"token id {bad[0]} is outside the vocabulary; allowed: 0 to {vocab - 1}")

    def _check_room(self, num_prompt_tokens: int, max_tokens: int, cache: int) -> None:
        context = self._target.max_length
        room, needed = min(context, cache), min(max_tokens, 1)  # one token of output at least, if any is asked for
        if num_prompt_tokens + needed > room:
            why = "" if room == context else f"; the cache holds no more than {cache}, load with more cache_tokens"
            raise ContextLengthError(
                f"the prompt has {num_prompt_tokens} tokens; allowed: up to {room - needed}, "
                f"for the maximum context length is {room} tokens{why}"
            )
        wanted = f"prompt ({num_prompt_tokens} tokens) and max_tokens ({max_tokens}) exceed"
        if num_prompt_tokens + max_tokens > context:
            raise RequestError(f"{wanted} the model's context of {context}")
        if num_prompt_tokens + max_tokens > cache:
            raise RequestError(f"{wanted} the cache, which holds {cache}; load with more cache_tokens")
