"""A model in its engine's thread, and what a call needs of it: its requests, its drafters, its outputs."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from paceline.bundled import block_head_of, draft_model_of
from paceline.drafter_set import DrafterSet
from paceline.engine.engine import Engine
from paceline.engine.request import Drafter, Environment, Request, Token
from paceline.engine.thread import EngineThread
from paceline.errors import ConfigError, RequestError
from paceline.loading import Loaded
from paceline.options import Call, Drafters
from paceline.output import Output
from paceline.params import SamplingOptions
from paceline.provenance import fingerprint
from paceline.request_factory import RequestFactory
from paceline.text.chat import Conversation, chat_ids, chat_pictured, has_pictures, is_batch, template_pictured
from paceline.text.pictures import Pictured
from paceline.text.processor import Processor
from paceline.text.prompts import Content, as_prompts
from paceline.text.tokenizer import sampling_defaults


class Companions(NamedTuple):
    """What joins the automatic drafters of one model; None is what is known for it, if anything is."""

    draft_model: Any = None  # a name, a folder or a `PreTrainedModel`
    head: Any = None  # a folder, or a head in memory


NO_COMPANIONS = Companions()


class Runtime:
    """A loaded model that decodes, until it is closed or forgotten.

    Args:
        load: gives the model; it runs in the engine's thread, whose workers then are the only ones.
        drafters: those of calls that name none.
        companions: what else drafts for the model.
    """

    def __init__(self, load: Callable[[], Loaded], drafters: Drafters, companions: Companions = NO_COMPANIONS) -> None:
        self._loaded: Loaded | None = None
        self.environment = Environment(None, 0, "cpu")  # of nothing yet
        self._fingerprint: str | None = None
        self._fingerprinting = threading.Lock()
        self.thread = thread = EngineThread()
        self._finalizer = weakref.finalize(self, thread.stop)
        try:
            self._loaded = thread.call(load)
            self._begin(self._loaded, companions)
            self._chosen = self.resolve(self._drafters.joined(drafters) if any(companions) else drafters)
        except Exception:
            self.close()
            raise
        except BaseException:  # Ctrl-C, which need not wait until the model has been read
            self._finalizer.detach()
            self.thread.stop(wait=False)
            raise

    def _begin(self, loaded: Loaded, companions: Companions) -> None:
        self.thread.engine = loaded.engine or Engine(loaded.target, loaded.pacer)
        see = None if loaded.viewer is None else partial(loaded.viewer.see, call=self.thread.call)
        self._factory: RequestFactory | None = RequestFactory(loaded.target, loaded.tokenizer, loaded.name, see)
        self.environment = _environment(loaded, companions)
        self._drafters = DrafterSet(self.environment, partial(loaded.pacer.attach, target=loaded.target))
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, self.thread.stop, self._drafters.close)

    @property
    def loaded(self) -> Loaded:
        """The model and what belongs to it.

        Raises:
            StateError: it is closed.
        """
        self.thread.check()
        assert self._loaded is not None
        return self._loaded

    @property
    def factory(self) -> RequestFactory:
        """What makes requests and outputs."""
        self.thread.check()
        assert self._factory is not None
        return self._factory

    @property
    def engine(self) -> Engine:
        """The engine, which belongs to its thread."""
        self.thread.check()
        assert self.thread.engine is not None
        return self.thread.engine

    @property
    def processor(self) -> Processor:
        """What reads pictures for the model.

        Raises:
            RequestError: it takes none.
        """
        viewer = self.loaded.viewer
        if viewer is None:
            raise RequestError("this model takes no pictures; allowed: text alone")
        return viewer.processor(self.thread.call)

    def seen_chat(self, messages: Conversation, tools: Sequence[Any] | None, how: Mapping[str, Any]) -> list[int]:
        """The token ids of a conversation with pictures, and these; `how` goes to `apply_chat_template`."""
        return self.factory.seen(template_pictured(self.processor, messages, tools, how))

    def fingerprint(self) -> str:
        """What the bytes of an output depend on beside its request; the first call reads all weights."""
        target = self.loaded.target
        with self._fingerprinting:
            if self._fingerprint is None:
                self._fingerprint = fingerprint(target.model_digest(), target.numerics())
            return self._fingerprint

    @property
    def drafters(self) -> tuple[Drafter, ...]:
        """Those of calls that name none."""
        return self._chosen

    def requests(self, prompts: object, call: Call) -> tuple[list[Request], bool]:
        """The requests of a call, and whether it is answered with a list."""
        contents, is_batch = as_prompts(prompts)
        if call.params.n > 1 and not is_batch:
            raise ConfigError(f"n is {call.params.n}; allowed with a single prompt: 1. A list, [prompt], has n samples")
        return self.requests_of(contents, call), is_batch

    def resolve(self, drafters: Drafters) -> tuple[Drafter, ...]:
        """Drafter objects. Made in the engine's thread: to be made may take files, and forwards for their time."""
        return self.thread.call(partial(self._drafters.resolve, drafters))

    def of_draft_model(self, model: object) -> tuple[Drafter, ...]:
        """Drafters that ask a draft model of single calls, and are kept; made in the engine's thread too."""
        return self.thread.call(partial(self._drafters.of_draft_model, model))

    def request(self, content: Content, call: Call) -> Request:
        """The request of a stream."""
        [request] = self.requests_of([content], call)
        return request

    def output(self, request: Request, tokens: Sequence[Token]) -> Output:
        """What a request that has ended came to."""
        return self.factory.output(request, tokens)

    def outputs(self, requests: Sequence[Request], is_batch: bool) -> Any:
        """The outputs of requests that nobody has read from, in a list if it was a batch."""
        outputs = [self.output(request, request.outbox) for request in requests]
        return outputs if is_batch else outputs[0]

    def chat_prompts(
        self, messages: Any, tools: Sequence[Any] | None, template_options: Mapping[str, Any] | None
    ) -> Any:
        """The prompt of one conversation, or a list of those of several."""
        if is_batch(messages):
            return [self._chat_prompt(one, tools, template_options) for one in messages]
        return self._chat_prompt(messages, tools, template_options)

    def _chat_prompt(
        self, messages: Any, tools: Sequence[Any] | None, template_options: Mapping[str, Any] | None
    ) -> list[int] | Pictured:
        if self.loaded.viewer is not None and has_pictures(messages):
            return chat_pictured(self.processor, messages, tools, template_options)
        return chat_ids(self.factory.tokenizer, messages, tools, template_options)

    def sampling_defaults(self) -> SamplingOptions:
        """What the checkpoint's own generation settings recommend."""
        return sampling_defaults(getattr(self.loaded.target, "generation_config", None))

    def close(self) -> None:
        """End the thread and free the model's memory."""
        self._finalizer()
        is_freed = self._loaded is not None and not self._loaded.is_shared
        self.environment = replace(self.environment, host=None)  # it holds the model
        self._loaded = self._factory = None
        self._chosen = ()
        if is_freed:
            _give_memory_back()

    def requests_of(self, contents: Sequence[Content], call: Call) -> list[Request]:
        """The requests of prompts: sample j of prompt i is at i * n + j."""
        factory = self.factory
        drafters = self._chosen if call.drafters is None else self.resolve(call.drafters)
        hints = factory.hints(call)
        return [r for one in contents for r in factory.requests(one, call, drafters, hints)]


def _kind_of(head: Any) -> str:
    """The drafter that runs a head, which says of itself what it is."""
    from paceline.heads.formats import open_head

    return str(open_head(head).kind if isinstance(head, (str, os.PathLike)) else getattr(head, "kind", "block"))


def _give_memory_back() -> None:
    """Glibc keeps what is freed for the next who asks, gigabytes of it; here nobody may ask for long."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _environment(loaded: Loaded, companions: Companions) -> Environment:
    """What drafters may know; what is bundled gives way to what the caller names.

    Raises:
        ModelError: what the caller names as a head is none.
    """
    inner = loaded.tokenizer.inner if loaded.tokenizer else None
    draft_model, head = companions
    known = draft_model_of(loaded.name) if draft_model is None else draft_model
    head, kind = (block_head_of(loaded.name), "block") if head is None else (head, _kind_of(head))
    device, target = str(loaded.target.numerics()["device"]), loaded.target
    kind = "" if head is None else kind
    return Environment(inner, target.vocab_size, device, known, loaded.host, head, kind)
