"""How a drafter is trained: every choice that a search may change, and what is chosen unasked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import PreTrainedModel, Qwen3Config

from paceline.errors import ConfigError
from paceline.heads.config import BlockConfig
from paceline.heads.transitions import TRANSITIONS
from paceline.training.data import MIX
from paceline.training.losses import LOSSES, WEIGHTS
from paceline.training.optimizing import OPTIMIZERS

_NARROW = 256  # up to this width one layer does
_LOGITS = 2**24  # numbers of a step's logits at most, beside the gradients


@dataclass(frozen=True)
class Recipe:
    """One protocol of training.

    Raises:
        ConfigError: a choice that there is not.
    """

    taps: tuple[int, ...] = ()
    num_layers: int = 1
    intermediate_size: int = 0  # of the head's layers; 0: its width and a half
    num_heads: int = 0  # of its attention, as large as the target's; 0: as many
    num_kv_heads: int = 0
    block_size: int = 8
    transition: str = "rnn"
    rank: int = 64
    loss: str = "match"
    weights: str = "decay"
    rate: float = 6e-3
    optimizer: str = "muon"
    mix: dict[float, float] = field(default_factory=lambda: dict(MIX))  # of temperatures
    length: int = 256  # tokens of a sequence
    sequences: int = 4  # of a step
    anchors: int = 64  # of a sequence
    short: float = 0.6  # share of steps that train the first slots of more blocks: see `block.BlockTrainee`
    drop: float = 0.4  # share of proposals that do without the transition
    reuse: int = 3  # steps on the same sequences, with anchors of their own: the target is run once for them
    candidates: int = 128  # tokens whose probabilities the loss sees one by one
    seed: int = 0

    def __post_init__(self) -> None:
        """See the class."""
        for name, given, allowed in (
            ("loss", self.loss, LOSSES),
            ("weights", self.weights, WEIGHTS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("transition", self.transition, TRANSITIONS),
        ):
            if given not in allowed:
                raise ConfigError(f"{name} is {given!r}; allowed: {', '.join(allowed)}")
        if not 32 <= self.length <= 8192:
            raise ConfigError(f"length is {self.length}; allowed: 32 to 8192")


def read_choice(recipe: type[Recipe], name: str, text: str) -> Any:
    """A field's value from what a user wrote: `taps` as 2,4,5 and `mix` as 0:0.3,1:0.7.

    Raises:
        ConfigError: there is no such field, or no such value.
    """
    usual = {one.name: one.type for one in fields(recipe)}
    if name not in usual:
        raise ConfigError(f"the recipe has no {name!r}; allowed: {', '.join(usual)}")
    try:
        return _READERS[str(usual[name])](text)
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}; allowed: {_FORMS[str(usual[name])]}") from error


def _mix(text: str) -> dict[float, float]:
    pairs = (pair.split(":") for pair in text.split(","))
    return {float(heat): float(share) for heat, share in pairs}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "tuple[int, ...]": _numbers,
    "dict[float, float]": _mix,
}
_FORMS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "tuple[int, ...]": "numbers with commas",
    "dict[float, float]": "TEMPERATURE:SHARE with commas",
}


def usual(target: PreTrainedModel, **choices: object) -> Recipe:
    """The recipe for a target of this size, with some choices made already."""
    config = target.config.get_text_config()
    depth, width, vocabulary = config.num_hidden_layers, config.hidden_size, config.vocab_size
    taps = tuple(dict.fromkeys(sorted({min(2, depth), depth // 2, max(depth - 3, depth // 2 + 1)})))
    sequences = max(1, min(Recipe.sequences, _LOGITS // (Recipe.length * vocabulary)))
    anchors = max(1, min(Recipe.anchors, _LOGITS // (8 * sequences * vocabulary)))
    found: dict[str, object] = {"taps": taps, "num_layers": 1 if width <= _NARROW else 2}
    found |= {"sequences": sequences, "anchors": anchors}
    return Recipe(**(found | choices))  # type: ignore[arg-type]


def choices_of(config: BlockConfig) -> dict[str, Any]:
    """What a recipe has to say to ask for a head of the same shapes."""
    layers = config.layers
    return {
        "taps": config.taps,
        "num_layers": layers.num_hidden_layers,
        "intermediate_size": layers.intermediate_size,
        "num_heads": layers.num_attention_heads,
        "num_kv_heads": layers.num_key_value_heads,
        "block_size": config.block_size,
        "transition": config.transition,
        "rank": config.rank,
    }


def block_config(recipe: Recipe, target: PreTrainedModel) -> BlockConfig:
    """The head that a recipe asks for: as wide as its target, whose embedding and language-model head it shares."""
    config = target.config.get_text_config()
    heads, groups = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=recipe.intermediate_size or 3 * config.hidden_size // 2,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads or heads,
        num_key_value_heads=recipe.num_kv_heads or groups or heads,
        head_dim=size,
        max_position_embeddings=getattr(config, "max_position_embeddings", 2048),
        rms_norm_eps=getattr(config, "rms_norm_eps", 1e-6),
        initializer_range=0.02,
    )
    return BlockConfig(
        layers=layers,
        taps=recipe.taps,
        target_hidden_size=config.hidden_size,
        block_size=recipe.block_size,
        mask_token_id=_mask_token(target),
        transition=recipe.transition,
        rank=recipe.rank,
    )


def _mask_token(target: PreTrainedModel) -> int:
    """A token whose embedding hardly ever stands in a text: that of padding, else of a text's end, else the first."""
    config = target.config.get_text_config()
    for name in ("pad_token_id", "eos_token_id"):
        found = getattr(config, name, None)
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, int) and 0 <= found < config.vocab_size:
            return found
    return 0
