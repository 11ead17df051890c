"""The errors that users meet; anything else that escapes is a bug of ours.

PacelineError
├── ConfigError    an option or a parameter is wrong: says what, what was given, what is allowed
├── ModelError     a model or tokenizer cannot be decoded exactly: names the part
├── RequestError   a request cannot be served: too long for the context or the cache, or for want of a tokenizer
│   ├── ContextLengthError  its prompt is too long for the context or the cache
│   └── DeadlineError       its deadline cannot be met: says what would be needed and what was given
├── StateError     not now: the LLM is closed or another process's, or the stream is still running
├── EngineError    a step failed, and with it every request that took part; the cause is kept
├── DrafterError   a drafter was misused or broke its port: names the drafter
└── ServerError    another server cannot be reached, or answered with an error: its status and what it said
"""

from __future__ import annotations


class PacelineError(Exception):
    """Base of every error that Paceline raises on purpose."""


class ConfigError(PacelineError):
    """An option or a sampling parameter that cannot be honoured."""


class ModelError(PacelineError):
    """A model or tokenizer that cannot be loaded, or not be decoded exactly."""


class RequestError(PacelineError):
    """A request that this engine cannot serve."""


class ContextLengthError(RequestError):
    """A prompt that is too long for the model's context or for the cache."""


class DeadlineError(RequestError):
    """A deadline that cannot be met: says what would be needed and what was given."""


class StateError(PacelineError):
    """A call that is not allowed now: on a closed `LLM`, in another process, about a stream that is still running."""


class EngineError(PacelineError):
    """A step failed: the requests that took part in it end, each with its own error; `__cause__` says why."""


class DrafterError(PacelineError):
    """A drafter that was misused, or that broke its port."""


class ServerError(PacelineError):
    """A server that this program asked cannot be reached, or answered with an error.

    Attributes:
        status: its HTTP status; None where there was no answer, or where it broke off.
        code: OpenAI's `error.code`, if it gave one.
        retry_after: seconds after which it may be asked again; None where asking again is no use.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its type's name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
