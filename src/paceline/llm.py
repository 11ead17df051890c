"""The public facade of a model: `generate`, `stream`, `chat`, and the same for coroutines.

Texts become requests here, and tokens become texts again; how tokens are made is the engine's business.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

from typing_extensions import Self, Unpack

from paceline.engine.engine import Engine
from paceline.engine.ports import Pacer, Target
from paceline.errors import ConfigError
from paceline.judging import Judging
from paceline.loading import Loaded, PacingOptions, Source, load_model
from paceline.options import Call, Drafters, Options, read_call
from paceline.output import Output
from paceline.pacing import MAX_SLOWDOWN, FixedPacer
from paceline.params import SamplingOptions, SamplingParams
from paceline.runtime import Companions, Runtime
from paceline.streams import AsyncStream, Stream, adecode, decode
from paceline.text.chat import Conversation
from paceline.text.prompts import Prompt, as_content, as_prompt
from paceline.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from paceline.heads.block import BlockHead
    from paceline.model.loading import ModelInfo


Single = str | Mapping[str, Any] | Iterable[SupportsIndex]  # one prompt


class LLM(Judging):
    """A model ready to decode: a hub name, a local folder, a bundled name, or a `PreTrainedModel`.

    A `PreTrainedModel` is left as it is: Paceline works on a copy that shares its weights. Threads and coroutines
    may share an `LLM`: their requests are decoded together, in one thread that belongs to it. Use it as a context
    manager, or call `close`.

    Args:
        model: what to load; None is the bundled `paceline-tiny`.
        tokenizer: a tokenizer or a processor, or where to load it from; None is the model's own, if it has one.
        drafters: "auto", "none", or a list of names, option strings (`"suffix:min_match=3"`) or objects.
        draft_model: a small model, best of the same vocabulary: a name, a folder or a `PreTrainedModel`; it joins the
            automatic drafters.
        head: a head on the model's hidden states: a folder of any published layout or a `BlockHead`; it joins them too.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto" is the checkpoint's; "float32", "bfloat16" or "float16"; "int8" or "int4" quantises its weights.
        cache_tokens: positions that the key/value pool holds; None sizes it from free memory.
        max_slowdown: by what share decoding may be slower than plain decoding, whatever the text.
        num_speculative_tokens: most draft tokens per step and request; None is as many as pay.
        trust_remote_code: run code that comes with a checkpoint.

    Raises:
        ModelError: the model or tokenizer cannot be read, or not be decoded exactly.
        ConfigError: an option that is not allowed.
    """

    def __init__(
        self,
        model: str | PreTrainedModel | None = None,
        *,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        drafters: Drafters = "auto",
        draft_model: str | PreTrainedModel | None = None,
        head: str | os.PathLike[str] | BlockHead | None = None,
        device: str = "auto",
        dtype: str = "auto",
        cache_tokens: int | None = None,
        max_slowdown: float = MAX_SLOWDOWN,
        num_speculative_tokens: int | None = None,
        trust_remote_code: bool = False,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        pacing = PacingOptions(max_slowdown, num_speculative_tokens)
        source = Source(model, tokenizer, device, dtype, cache_tokens, trust_remote_code, on_progress)
        self._runtime: Runtime = Runtime(partial(load_model, source, pacing), drafters, Companions(draft_model, head))

    @classmethod
    def from_target(
        cls,
        target: Target,
        tokenizer: Tokenizer | None = None,
        *,
        drafters: Drafters = "auto",
        draft_model: str | PreTrainedModel | None = None,
        head: str | os.PathLike[str] | BlockHead | None = None,
        pacer: Pacer | None = None,
        info: ModelInfo | None = None,
        engine: Engine | None = None,
    ) -> Self:
        """An `LLM` over a target that has been made: a fake of `paceline.testing`, or that of another `LLM`.

        `engine` in place of a new one over the target and the pacer.
        """
        llm = cls.__new__(cls)
        host = getattr(target, "host", None)
        loaded = Loaded(target, tokenizer, pacer or FixedPacer(), info, engine, is_shared=True, host=host)
        llm._runtime = Runtime(lambda: loaded, drafters, Companions(draft_model, head))
        return llm

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is an iterable of strs too
        self, prompts: Single, sampling_params: SamplingParams | None = None, **options: Unpack[Options]
    ) -> Output: ...
    @overload
    def generate(
        self, prompts: Iterable[Prompt], sampling_params: SamplingParams | None = None, **options: Unpack[Options]
    ) -> list[Output]: ...
    def generate(
        self,
        prompts: Prompt | Iterable[Prompt],
        sampling_params: SamplingParams | None = None,
        **options: Unpack[Options],
    ) -> Output | list[Output]:
        """The output of a prompt, or the outputs of several.

        A prompt is a string, token ids in a list or an array, or a mapping that holds either, or a text and `images`;
        several are a batch, decoded together and returned in order, `n` samples of a prompt side by side.

        Args:
            prompts: what to continue: one prompt gives an `Output`, a list of them a list.
            sampling_params: how to sample; None is the defaults.
            **options: sampling parameters in place of those of `sampling_params`, and the rest of `Options`:
                drafters: in place of those given at load; those beside "auto" in a list join the automatic ones.
                prediction: what the output will probably be, as in OpenAI's API; it changes the speed alone.
                source_language, target_language: by its tokenizer's names, of a model whose prompts are sources.
                tenant: nothing learnt from one tenant's text drafts for another, and no prefix is shared.
                pacer: in place of the one given at load; requests with different pacers are not decoded together.
                add_special_tokens: whether a text is read with those that its tokenizer adds; True is the default.
                truncate_prompt_tokens: keep this many tokens of a prompt, the last ones.
                deadline_ms: milliseconds from now; what there is by then is the output (`stop_reason` "deadline").
                num_speculative_tokens: most draft tokens per step, 0 is plain decoding; it changes the speed alone.
                stop_when: "uncertain" ends the output where the model has become unsure, a function of the last
                    `Token`s where it returns a reason; `Output.stopped` says where and why.

        Raises:
            ConfigError: a parameter or drafter that does not exist or is out of range.
            ContextLengthError: a prompt that is too long for the context or the cache.
            DeadlineError: a deadline that cannot be met.
            RequestError: a prompt that is empty, or does not fit together with `max_tokens`.
            EngineError: a step that failed; its cause says why.
            StateError: the LLM is closed.
        """
        call = self._read(sampling_params, options)
        requests, is_batch = self._runtime.requests(prompts, call)
        decode(self._runtime.thread, requests, call.pacer)
        return self._runtime.outputs(requests, is_batch)  # type: ignore[no-any-return]

    async def agenerate(
        self,
        prompts: Prompt | Iterable[Prompt],
        sampling_params: SamplingParams | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """`generate` in a coroutine; a task that is cancelled ends its own request alone."""
        call = self._read(sampling_params, options)
        requests, is_batch = await asyncio.to_thread(self._runtime.requests, prompts, call)
        await adecode(self._runtime.thread, requests, call.pacer)
        return self._runtime.outputs(requests, is_batch)

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, **options: Unpack[Options]
    ) -> Stream:
        """Tokens of one prompt as they are decoded. Closing the stream early frees what the request holds."""
        call = self._read_one(sampling_params, options)
        request = self._runtime.request(as_content(prompt), call)
        return Stream(self._runtime.thread, request, call.pacer, self._runtime.output)

    def astream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, **options: Unpack[Options]
    ) -> AsyncStream:
        """`stream` for coroutines: `async for token in llm.astream(prompt)`."""
        call, content = self._read_one(sampling_params, options), as_content(prompt)
        make = partial(self._runtime.request, content, call)
        return AsyncStream(self._runtime.thread, make, call.pacer, self._runtime.output)

    @overload
    def chat(
        self,
        messages: Conversation,
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> Output: ...
    @overload
    def chat(
        self,
        messages: Sequence[Conversation],
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> list[Output]: ...
    @overload
    def chat(
        self,
        messages: Conversation,
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> Stream: ...
    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: bool = False,
        **options: Unpack[Options],
    ) -> Output | list[Output] | Stream:
        """`generate`, or `stream`, on a conversation, or `generate` on several, through the model's chat template.

        Args:
            messages: mappings with "role" and "content", a text or a list of parts, such as `{"type": "image", "image":
                file, bytes, array, PIL image or data: URL}`; a last one of the assistant's is gone on with.
            sampling_params: as in `generate`, and so are the options.
            tools: functions or JSON schemas that the template may describe to the model.
            chat_template_kwargs: further variables for the template.
            stream: give tokens as they are decoded.

        Raises:
            RequestError: the model has no chat template, or it refuses the messages.
        """
        prompts = self._runtime.chat_prompts(messages, tools, chat_template_kwargs)
        if stream:
            return self.stream(prompts, sampling_params, **options)
        return self.generate(prompts, sampling_params, **options)  # type: ignore[no-any-return]

    async def achat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        stream: bool = False,
        **options: Unpack[Options],
    ) -> Any:
        """`chat` in a coroutine: an `Output` or a list of them, or with `stream` an `AsyncStream`."""
        prompts = await asyncio.to_thread(self._runtime.chat_prompts, messages, tools, chat_template_kwargs)
        if stream:
            return self.astream(prompts, sampling_params, **options)
        return await self.agenerate(prompts, sampling_params, **options)

    def on_prefill(self, callback: Callable[[int], None] | None) -> None:
        """Be told, in the engine's thread, how many prompt tokens each chunk of prefill has read; None ends it."""
        self.target.on_prefill = callback

    @property
    def info(self) -> ModelInfo | None:
        """What was loaded, on which numeric path its bits are exact, and what its forwards cost."""
        return self._runtime.loaded.info

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: weights (hashed once), settings, path, releases. With a seed it means the bytes."""
        return self._runtime.fingerprint()

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, if it has one."""
        return self._runtime.loaded.tokenizer

    @property
    def target(self) -> Target:
        """The model as the engine knows it."""
        return self._runtime.loaded.target

    @property
    def engine(self) -> Engine:
        """The engine, which belongs to its thread: look, and do not step it."""
        return self._runtime.engine

    @property
    def sampling_defaults(self) -> SamplingOptions:
        """What the checkpoint's settings recommend, if anything: `llm.generate(prompt, **llm.sampling_defaults)`."""
        return self._runtime.sampling_defaults()

    @property
    def runtime(self) -> Runtime:
        """The model in its thread: what a server is built on, and no part of the stable interface."""
        return self._runtime

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that a prompt stands for."""
        return self._runtime.factory.ids(as_prompt(prompt))

    def close(self) -> None:
        """Free the model's memory. What is decoding ends with a `StateError`. Closing twice does nothing."""
        self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("an LLM holds native memory and cannot be copied or pickled; load the model again")

    def _read(self, sampling_params: SamplingParams | None, options: Mapping[str, Any]) -> Call:
        self._runtime.thread.check()
        return read_call(sampling_params, options)

    def _read_one(self, sampling_params: SamplingParams | None, options: Mapping[str, Any]) -> Call:
        call = self._read(sampling_params, options)
        if call.params.n > 1:
            raise ConfigError(f"n is {call.params.n}; allowed in a stream: 1")
        return call


load = LLM  # as a verb
