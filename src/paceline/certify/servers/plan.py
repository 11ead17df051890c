"""What two servers are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from paceline.errors import ConfigError

ENDPOINTS = ("completions", "chat")
LEAST_SAMPLES = 10  # of a prompt
_OURS = ("model", "messages", "prompt", "stream", "temperature", "seed", "max_tokens", "logprobs", "n")


@dataclass(frozen=True)
class ServersPlan:
    """All that a comparison depends on beside the servers.

    Attributes:
        baseline: URL of the server that is believed.
        candidate: URL of the server that is judged.
        models: the name that each is asked for; None is the first it lists.
        endpoint: "completions", or "chat" with each prompt as a user's message.
        prompts: texts.
        max_tokens: most tokens of a greedy text.
        num_samples: samples of each prompt; of the baseline twice as many.
        sample_tokens: tokens of a sample.
        seed: where all seeds come from.
        concurrency: requests under way at once.
        fields: further fields of every request.
    """

    baseline: str
    candidate: str
    models: tuple[str | None, str | None]
    endpoint: str
    prompts: tuple[str, ...]
    max_tokens: int = 48
    num_samples: int = 60
    sample_tokens: int = 3
    seed: int = 0
    concurrency: int = 8
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.endpoint not in ENDPOINTS:
            raise ConfigError(f"--endpoint is {self.endpoint!r}; allowed: {', '.join(ENDPOINTS)}")
        if self.num_samples < LEAST_SAMPLES:
            raise ConfigError(f"--num-samples is {self.num_samples}; allowed: at least {LEAST_SAMPLES}")
        for name in ("max_tokens", "sample_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: at least 1")
        if not self.prompts or not all(self.prompts):
            raise ConfigError("there are no prompts, or an empty one; allowed: at least one, and none empty")
        if taken := [name for name in _OURS if name in self.fields]:
            raise ConfigError(f"--field sets {taken[0]}, which the comparison sets; allowed: other fields")

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)
