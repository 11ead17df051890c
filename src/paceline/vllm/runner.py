"""What vLLM's model runner knows of its batch: the one place that reads vLLM's own objects.

vLLM hands its hook arrays of tokens and no requests. Whose row is whose, and what a request asked for, only the runner
knows that made the drafter: it is found among the callers of the constructor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from paceline.errors import ConfigError

OLDEST, NEWEST = (0, 31), (0, 33)  # releases of vLLM that this was tried with, or whose sources were read
_RUNNER = "GPUModelRunner"  # the CPU's is a subclass


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asked for, as far as drafting looks at it."""

    prompt: Sequence[int]
    max_tokens: int | None
    end_token_ids: frozenset[int]
    extra: Mapping[str, Any]  # `vllm_xargs`


class Runner:
    """A view of the model runner.

    Args:
        runner: vLLM's.
        version: of vLLM.
    """

    def __init__(self, runner: Any, version: str) -> None:
        self._runner, self.version = runner, version

    def rows(self) -> list[str]:
        """The ids of the batch's requests, in the order of their rows."""
        return [str(request) for request in self._runner.input_batch.req_ids]

    def is_known(self, request: str) -> bool:
        """Whether it has not ended; it may be out of the batch, waiting."""
        return request in self._runner.requests

    def asked(self, request: str) -> Asked | None:
        """None of what is no text: prompts of embeddings, pooling."""
        state = self._runner.requests[request]
        params, prompt = state.sampling_params, state.prompt_token_ids
        if params is None or prompt is None:
            return None
        ends = {params.eos_token_id, *(params.stop_token_ids or ())} - {None}
        return Asked(prompt, params.max_tokens, frozenset(ends), params.extra_args or {})


def find_runner(frame: FrameType | None, version: str) -> Runner:
    """The runner that is making a drafter, from the frame of the drafter's constructor.

    Raises:
        ConfigError: nobody of that kind does.
    """
    while frame is not None:
        caller = frame.f_locals.get("self")
        if any(cls.__name__ == _RUNNER for cls in type(caller).__mro__):
            return Runner(caller, version)
        frame = frame.f_back
    raise ConfigError(f"a drafter was made by no {_RUNNER} of vLLM; allowed: the 'model' of its speculative_config")


def check_version(version: str) -> None:
    """ConfigError for a release of vLLM whose runner may be another."""
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if not OLDEST <= release <= NEWEST:
        allowed = " to ".join(".".join(map(str, one)) for one in (OLDEST, NEWEST))
        raise ConfigError(f"vLLM is {version}; allowed: {allowed}")
