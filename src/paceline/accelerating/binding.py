"""`generate` of an accelerated model: bound on the instance, taken off again, and gone in copies and pickles."""

from __future__ import annotations

import inspect
import threading
import weakref
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Unpack

from paceline.accelerating.calls import Call
from paceline.accelerating.engines import EngineOptions, Engines
from paceline.accelerating.handing_over import HandOver, tell
from paceline.errors import ModelError
from paceline.llm import LLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")


class Generate:
    """The `generate` of one model: transformers' own arguments and results, decoded by Paceline where it can."""

    def __init__(self, model: PreTrainedModel, engines: Engines) -> None:
        self._model = weakref.ref(model)
        self.engines = engines
        self.__doc__ = type(model).generate.__doc__
        self.__signature__ = inspect.signature(MethodType(type(model).generate, model))

    @property
    def llm(self) -> LLM:
        """What decodes: loaded anew where the model has changed."""
        return self.engines.current()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `generate` of the model's class returns."""
        model = self._model()
        assert model is not None, "whoever calls this has the model"
        try:
            return Call(model, self.engines, args, kwargs).decoded()
        except HandOver as reason:
            tell(reason)
        return type(model).generate(model, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied: Any = memo[id(self._model())]
        return MethodType(type(copied).generate, copied)

    def __reduce__(self) -> Any:
        return getattr, (self._model(), "generate")  # a model that is read back has its class's own by then


_kept: weakref.WeakKeyDictionary[PreTrainedModel, Generate] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def generate(model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
    """One call decoded by Paceline, as a decoding method of transformers (`custom_generate`); nothing is bound.

    What it takes to decode for a model is made at the first call, and kept as long as the model is there.
    """
    bound = vars(model).get("generate")
    if isinstance(bound, Generate):
        return bound(*args, **kwargs)
    with _making:
        if model not in _kept:
            _kept[model] = Generate(model, Engines(model, {}))
    return _kept[model](*args, **kwargs)


def accelerate(model: Model, **options: Unpack[EngineOptions]) -> Model:
    """Have a loaded model's `generate` decode through Paceline: the same arguments and results, sooner.

    The model itself stays as it is: its class, weights, `forward` and what `save_pretrained` writes. What Paceline does
    not do is left to transformers' own `generate`, with a `HandedOverWarning` that says which argument and why.
    Weights that change later are noticed at the next call, which then loads them anew.

    Args:
        model: a causal language model of transformers.
        **options: of `LLM`: tokenizer, drafters, draft_model, head, cache_tokens, max_slowdown, num_speculative_tokens.

    Returns:
        `model`, whose `generate` is bound on the instance until `unaccelerate`.

    Raises:
        ModelError: it cannot be decoded exactly, or its class has a `generate` of its own.
        ConfigError: an option that is not allowed.
    """
    from transformers import GenerationMixin

    if getattr(type(model), "generate", None) is not GenerationMixin.generate:
        raise ModelError(f"{type(model).__name__} has a generate of its own; allowed: transformers' GenerationMixin's")
    unaccelerate(model)
    model.generate = Generate(model, Engines(model, options))
    return model


def unaccelerate(model: Model) -> Model:
    """Give a model the `generate` of its class back, and free what decoded for it; without effect on others."""
    bound = vars(model).get("generate")
    if isinstance(bound, Generate):
        del model.generate
        bound.engines.close()
    return model
