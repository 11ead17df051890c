"""From what a caller names to what an `LLM` needs: the model, its tokenizer, what its forwards cost, and the pacer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paceline.bundled import DEFAULT_TARGET
from paceline.engine.engine import Engine
from paceline.engine.ports import Pacer, Target
from paceline.engine.tree import MAX_DEPTH
from paceline.errors import ConfigError
from paceline.garbage import collected_later
from paceline.pacing import AdaptivePacer, cost_table, experience_file
from paceline.text.processor import is_processor, read_processor
from paceline.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from paceline.model.hosting import Host
    from paceline.model.loading import ModelInfo, Progress
    from paceline.model.pictures.viewer import Viewer


@dataclass(frozen=True)
class Source:
    """What to load, and how; the fields are those of `LLM`."""

    model: Any
    tokenizer: Any = None
    device: str = "auto"
    dtype: str = "auto"
    cache_tokens: int | None = None
    trust_remote_code: bool = False
    on_progress: Progress | None = None


@dataclass(frozen=True)
class PacingOptions:
    """How drafting is held in check; the fields are those of `LLM`."""

    max_slowdown: float
    num_speculative_tokens: int | None = None

    def __post_init__(self) -> None:
        max_nodes = self.num_speculative_tokens
        if not 0.0 <= self.max_slowdown <= 10.0:
            raise ConfigError(f"max_slowdown is {self.max_slowdown!r}; allowed: a number in [0, 10]")
        if max_nodes is not None and not 0 <= max_nodes <= MAX_DEPTH:
            raise ConfigError(f"num_speculative_tokens is {max_nodes!r}; allowed: an integer from 0 to {MAX_DEPTH}")


@dataclass(frozen=True)
class Loaded:
    """A model ready to decode."""

    target: Target
    tokenizer: Tokenizer | None
    pacer: Pacer
    info: ModelInfo | None = None
    engine: Engine | None = None  # in place of a new one
    is_shared: bool = False  # the target is another's, and stays when this is closed
    host: Host | None = None  # the target for heads that read its hidden states
    viewer: Viewer | None = None  # what sees pictures for it

    @property
    def name(self) -> str:
        """What outputs call the model; empty for one that has no name."""
        return self.info.name if self.info else ""


@collected_later()
def load_model(source: Source, pacing: PacingOptions) -> Loaded:
    """Read a model and its tokenizer, prove its bits, and look at what its forwards cost.

    Raises:
        ModelError: the model or tokenizer cannot be read, or not be decoded exactly.
        ConfigError: an option that is not allowed.
    """
    from paceline.architectures import is_composite
    from paceline.formats.opening import find_checkpoint
    from paceline.model.loading import load_target
    from paceline.model.pictures.viewer import Viewer

    model = DEFAULT_TARGET if source.model is None else _path(source.model)
    found = find_checkpoint(model) if isinstance(model, str) else None
    target, info = load_target(
        found or model,
        dtype=source.dtype,
        device=source.device,
        cache_tokens=source.cache_tokens,
        trust_remote_code=source.trust_remote_code,
        on_progress=source.on_progress,
    )
    costs = cost_table(target, info.name)
    max_nodes = pacing.num_speculative_tokens
    file = experience_file(target, info.name)
    pacer = AdaptivePacer(costs, pacing.max_slowdown, MAX_DEPTH if max_nodes is None else max_nodes, file=file)
    own = found.tokenizer() if found is not None and source.tokenizer is None else None
    given = source.tokenizer if is_processor(source.tokenizer) else None
    words = own or (
        model if source.tokenizer is None else _path(source.tokenizer if given is None else given.tokenizer)
    )
    tokenizer = load_tokenizer(words, target, source.trust_remote_code)
    viewer = None
    if is_composite(target.decoder.model.config):
        viewer = Viewer(target.decoder, lambda: given or read_processor(model, source.trust_remote_code))
    return Loaded(target, tokenizer, pacer, info, host=target.host, viewer=viewer)


def _path(source: Any) -> Any:
    """A name or a folder as text; objects pass through."""
    return os.path.expanduser(source) if isinstance(source, str | os.PathLike) else source
