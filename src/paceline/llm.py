"""The public facade of a loaded model: `generate`, `stream`, `chat`.

Texts become requests here, and tokens become texts again; how tokens are made is the engine's business.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typing_extensions import Self, Unpack

from paceline.bundled import draft_model_of
from paceline.drafters import automatic, make
from paceline.engine.engine import Engine
from paceline.engine.ports import Pacer, Target
from paceline.engine.request import NO_HINTS, Drafter, Environment, Hints, Request, Token
from paceline.errors import ConfigError, RequestError
from paceline.output import Origin, Output
from paceline.pacing import FixedPacer
from paceline.params import SamplingOptions, SamplingParams
from paceline.sampling.grammar import Compiler
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.prompts import Prompt, as_prompt, as_prompts
from paceline.text.stream import TextStream, no_text
from paceline.text.tokenizer import Tokenizer, eos_ids, sampling_defaults

if TYPE_CHECKING:
    from paceline.model.loading import ModelInfo

Drafters = str | Sequence[str | Drafter]
DEFAULTS = SamplingParams()


class LLM:
    """A loaded model. Use it as a context manager, or call `close`.

    Threads may share an `LLM`: their requests are decoded together, each step under one lock. A stream or an
    output belongs to the thread that asked for it.
    """

    def __init__(
        self,
        target: Target,
        tokenizer: Tokenizer | None,
        *,
        drafters: Drafters = "auto",
        draft_model: Any = None,
        pacer: Pacer | None = None,
        info: ModelInfo | None = None,
    ) -> None:
        self.info = info
        self.target = target
        self.tokenizer = tokenizer
        self.engine = Engine(target, pacer or FixedPacer())
        self._grammars = Compiler(tokenizer.definition if tokenizer else None, target.vocab_size)
        if draft_model is None and info is not None:
            draft_model = draft_model_of(info.name)
        device = str(target.numerics()["device"])
        self._environment = Environment(tokenizer.inner if tokenizer else None, target.vocab_size, device, draft_model)
        self._decode = tokenizer.decode if tokenizer else no_text
        self._lock = threading.Lock()
        self._is_closed = False
        self._made: dict[str, Drafter] = {}
        self._drafters = self._resolve(drafters)

    def generate(
        self,
        prompt: Prompt | Iterable[Prompt],
        params: SamplingParams | None = None,
        *,
        drafters: Drafters | None = None,
        prediction: Prompt | None = None,
        tenant: str = "",
        pacer: Pacer | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Any:
        """The output of a prompt, or a list of outputs if there are several prompts or samples.

        A prompt is a string, token ids in a list or an array, or a mapping that holds either; several are a batch,
        decoded together and returned in order, `n` samples of a prompt side by side. See `as_prompts`.

        Args:
            prompt: what to continue.
            params: how to sample; None is the defaults.
            drafters: in place of those given at load; those beside "auto" in a list join the automatic ones.
            prediction: what the output will probably be, as in OpenAI's API; it changes the speed alone.
            tenant: nothing learnt from one tenant's text drafts for another, and no prefix is shared.
            pacer: in place of the one given at load; requests with different pacers are not decoded together.
            **sampling: parameters in place of those of `params`.

        Raises:
            ConfigError: a parameter or drafter that does not exist or is out of range.
            RequestError: a prompt that is empty or does not fit.
        """
        params = self._params(params, sampling)
        prompts, is_batch = as_prompts(prompt)
        chosen = self._drafters if drafters is None else self._resolve(drafters)
        hints = self._hints(prediction, tenant)
        requests = [r for one in prompts for r in self._requests(one, params, chosen, hints)]
        with self._running(requests, pacer):
            kept = [list(self._tokens_of(request)) for request in requests]
        outputs = [self._output(request, tokens) for request, tokens in zip(requests, kept, strict=True)]
        return outputs if is_batch or params.n > 1 else outputs[0]

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        drafters: Drafters | None = None,
        prediction: Prompt | None = None,
        tenant: str = "",
        pacer: Pacer | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Stream:
        """Tokens of one prompt as they are decoded. Closing the iterator early frees what the request holds."""
        params = self._params(params, sampling)
        if params.n > 1:
            raise ConfigError(f"n is {params.n}; allowed in stream: 1")
        chosen = self._drafters if drafters is None else self._resolve(drafters)
        [request] = self._requests(as_prompt(prompt), params, chosen, self._hints(prediction, tenant))
        return Stream(self, request, pacer)

    def chat(self, messages: Sequence[dict[str, str]], **options: Any) -> Any:
        """`generate` on a conversation, through the model's own chat template."""
        return self.generate(self._tokenizer().chat(messages), **options)

    def on_prefill(self, callback: Callable[[int], None] | None) -> None:
        """Be told how many prompt tokens each chunk of prefill has read; None ends it."""
        self.target.on_prefill = callback

    @property
    def sampling_defaults(self) -> SamplingOptions:
        """What the checkpoint's own generation settings recommend; used only if passed on by the caller.

        `llm.generate(prompt, **llm.sampling_defaults)`. Empty for a model that recommends nothing.
        """
        return sampling_defaults(getattr(self.target, "generation_config", None))

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that a prompt stands for."""
        return self._ids(as_prompt(prompt))

    def close(self) -> None:
        """Release the drafters and decode no more; a running stream ends with an error. Closing twice does nothing."""
        with self._lock:
            self._is_closed = True
            for drafter in self._made.values():
                drafter.close()
            self._made.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("an LLM holds native memory and cannot be copied or pickled; load the model again")

    def _params(self, params: SamplingParams | None, options: Mapping[str, Any]) -> SamplingParams:
        """The parameters of a call."""
        self._check_open()
        if params is None:
            params = DEFAULTS
        if not isinstance(params, SamplingParams):
            raise ConfigError(f"params is {params!r}; allowed: a SamplingParams, or keyword arguments")
        return params.merged(options)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("this LLM is closed; load the model again")

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("this model was loaded without a tokenizer; give prompts as token ids")
        return self.tokenizer

    def _resolve(self, drafters: Drafters) -> tuple[Drafter, ...]:
        """Drafter objects for "auto", "none", a name, or a list; named ones are made once and kept."""
        if isinstance(drafters, str):
            drafters = [] if drafters == "none" else [drafters]
        if "none" in drafters:
            raise ConfigError("drafters has 'none' beside others; allowed: 'none' alone")
        named = [spec for spec in drafters if spec != "auto"]
        if len(named) < len(drafters):
            named = [*(name for name in automatic(self._environment) if name not in named), *named]
        return tuple(self._drafter(spec) for spec in named)

    def _drafter(self, spec: str | Drafter) -> Drafter:
        with self._lock:
            key = spec if isinstance(spec, str) else f"object {id(spec)}"
            if key not in self._made:
                drafter = make(spec)
                drafter.attach(self._environment)
                self.engine.pacer.meet(drafter, self.target)
                self._made[key] = drafter
            return self._made[key]

    def _hints(self, prediction: Prompt | None, tenant: str) -> Hints:
        if not isinstance(tenant, str):
            raise ConfigError(f"tenant is {tenant!r}; allowed: a string")
        return Hints(tuple(self._ids(as_prompt(prediction, "prediction"))) if prediction is not None else (), tenant)

    def _ids(self, content: str | list[int]) -> list[int]:
        return self._tokenizer().encode(content) if isinstance(content, str) else content

    def _requests(
        self, content: str | list[int], params: SamplingParams, drafters: Sequence[Drafter], hints: Hints = NO_HINTS
    ) -> list[Request]:
        ids = self._ids(content)
        room = min(self.target.max_length, self.target.capacity)
        params, max_tokens = params.resolved(len(ids), room), params.limit(len(ids), room)
        self._check(ids, params, max_tokens)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        eos = eos_ids(self.tokenizer, getattr(self.target, "generation_config", None))
        words = tuple(w for word in params.bad_words for w in self._tokenizer().spellings(word))
        context = SamplerContext(self.target.vocab_size, eos, words)
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
        return [
            Request(
                ids,
                Sampler(params, context, ids, seed, sample, self._grammars.start(params, eos, max_tokens)),
                TextStream(self._decode, ids, params.stop),
                ends,
                drafters,
                seed,
                hints,
            )
            for sample in range(params.n)
        ]

    def _check(self, ids: Sequence[int], params: SamplingParams, max_tokens: int) -> None:
        if not ids:
            raise RequestError("the prompt is empty; allowed: at least one token")
        vocab, room = self.target.vocab_size, self.target.max_length
        bad = [t for t in (*ids, *params.stop_token_ids, *(params.logit_bias or {})) if not 0 <= t < vocab]
        if bad:
            raise RequestError(f"token id {bad[0]} is outside the vocabulary; allowed: 0 to {vocab - 1}")
        wanted = f"prompt ({len(ids)} tokens) and max_tokens ({max_tokens}) exceed"
        if len(ids) + max_tokens > room:
            raise RequestError(f"{wanted} the model's context of {room}")
        if len(ids) + max_tokens > self.target.capacity:
            raise RequestError(f"{wanted} the cache, which holds {self.target.capacity}; load with more cache_tokens")

    def _running(self, requests: Sequence[Request], pacer: Pacer | None) -> _Running:
        return _Running(self.engine, self._lock, requests, pacer)

    def _tokens_of(self, request: Request) -> Iterator[Token]:
        """Tokens as steps bring them; steps the engine whenever there is nothing to hand out."""
        while True:
            finished = request.finish_reason is not None  # asked first: another thread may be stepping
            while request.outbox:
                yield request.outbox.popleft()
            if request.error is not None:
                raise request.error
            if finished:
                return
            with self._lock:
                if not request.outbox and request.finish_reason is None:
                    self._step_for(request)

    def _step_for(self, request: Request) -> None:
        """One step. Whoever is interrupted in it finds an unfinished request aborted, not failed."""
        self._check_open()
        try:
            self.engine.step()
        except BaseException:
            if request.error is not None:
                request.error, request.finish_reason = None, "abort"
            raise

    def _output(self, request: Request, tokens: Sequence[Token]) -> Output:
        stats = replace(request.stats, numerics=self.target.numerics(), memory=self.target.memory())
        assert request.finish_reason is not None
        ids = tuple(request.tokens[request.num_prompt_tokens :])
        steps, name = tuple(request.trace), self.info.name if self.info else ""
        origin = Origin(name, tuple(request.tokens[: request.num_prompt_tokens]), request.params, self._decode)
        return Output(request.text, ids, tuple(tokens), request.finish_reason, request.seed, stats, steps, origin)


class _Running:
    """Requests in the engine for as long as a `with` lasts; what is unfinished then is aborted."""

    def __init__(self, engine: Engine, lock: threading.Lock, requests: Sequence[Request], pacer: Pacer | None) -> None:
        self.engine, self._lock, self._requests, self._pacer = engine, lock, requests, pacer

    def __enter__(self) -> None:
        with self._lock:
            for request in self._requests:
                self.engine.add(request, self._pacer)

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            for request in self._requests:
                self.engine.abort(request)


class Stream:
    """An iterator of tokens; `output` is what has been emitted so far, also after an interruption."""

    def __init__(self, llm: LLM, request: Request, pacer: Pacer | None) -> None:
        self._llm = llm
        self._pacer = pacer
        self._request = request
        self._seen: list[Token] = []
        self._tokens = self._run()

    def _run(self) -> Iterator[Token]:
        with self._llm._running([self._request], self._pacer):
            for token in self._llm._tokens_of(self._request):
                self._seen.append(token)
                yield token

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """Stop decoding and free the request's cache."""
        self._tokens.close()  # type: ignore[attr-defined]
        if self._request.finish_reason is None:
            self._request.finish_reason = "abort"

    @property
    def output(self) -> Output:
        """The output so far; its `finish_reason` is "abort" if decoding did not come to its end."""
        if self._request.finish_reason is None:
            raise ConfigError("the stream is still running; read it to its end, or close it")
        return self._llm._output(self._request, self._seen)
