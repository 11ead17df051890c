"""Folders of adapters, as PEFT writes them: what one is, and the model that it belongs on.

Knows nothing of weights. What would make other weights than are merged here is refused by name.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Settings that are read here, or that no weight depends on once it is trained.
_KNOWN = {
    *("peft_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"),
    *("modules_to_save", "bias", "lora_bias", "use_dora", "fan_in_fan_out", "init_lora_weights"),
    *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout", "target_modules"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "eva_config", "megatron_core", "qalora_group_size"),
    *("loftq_config", "corda_config", "lora_ga_config", "runtime_config"),  # of ways to begin, which are looked at
}
_REBASED = ("pissa", "olora", "loftq", "corda", "lora_ga")  # ways to begin that change the base as well


@dataclass(frozen=True)
class Adapter:
    """An adapter and its base."""

    folder: Path
    base: str  # a name or a folder
    settings: dict[str, Any]

    @property
    def has_tokenizer(self) -> bool:
        """Whether it brings a tokenizer of its own."""
        return (self.folder / "tokenizer_config.json").is_file()

    def rank(self, module: str) -> int:
        """The rank that a module's adapter has."""
        return int(_of_module(self.settings.get("rank_pattern"), module, self.settings.get("r", 8)))

    def scale(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        rank = self.rank(module)
        alpha = float(_of_module(self.settings.get("alpha_pattern"), module, self.settings.get("lora_alpha", 8)))
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def __str__(self) -> str:
        kind = "DoRA" if self.settings.get("use_dora") else "LoRA"
        return f"{kind} adapter of rank {self.settings.get('r', 8)}, merged into {self.base} in float32"


def find_adapter(source: object) -> Adapter | None:
    """The adapter that a name stands for: a folder, `org/name` on the hub, or `BASE+ADAPTER` with another base.

    None for a name of anything else, and for what is no name.

    Raises:
        ModelError: its settings cannot be read, name no base, or ask for what is not merged here.
    """
    if not isinstance(source, (str, os.PathLike)):
        return None
    name, base = str(source), ""
    folder = _folder(name)
    if folder is None and "+" in name:
        base, _, rest = name.rpartition("+")
        folder = _folder(os.path.expanduser(rest)) if base and rest else None
    if folder is None:
        return None
    settings = _settings(folder)
    _check(folder, settings)
    named = base or str(settings.get("base_model_name_or_path") or "")
    if not named:
        raise ModelError(
            f"the adapter {str(folder)!r} names no base; allowed: BASE+{folder}, with a model's name for BASE"
        )
    beside = folder / named
    return Adapter(folder, str(beside) if not base and beside.is_dir() else os.path.expanduser(named), settings)


def _folder(name: str) -> Path | None:
    """The folder of an adapter: one with an adapter's settings, and no model of its own."""
    path = Path(name)
    if path.is_dir():
        is_model = (path / "config.json").is_file() and any(path.glob("model*.safetensors"))
        return path if (path / CONFIG).is_file() and not is_model else None
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return None
    return _from_hub(name)


def _from_hub(name: str) -> Path | None:
    """What the hub has by a name, if it is an adapter; its files are downloaded."""
    from huggingface_hub import snapshot_download
    from transformers.utils import cached_file

    try:
        if cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False):
            return None
        if not cached_file(name, CONFIG, _raise_exceptions_for_missing_entries=False):
            return None
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]))
    except Exception:  # transformers says it better
        return None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{folder / CONFIG} is no object of settings")
    return found


def _check(folder: Path, settings: dict[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"the adapter {str(folder)!r} is of the kind {kind!r}; allowed: LORA, which can be merged")
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_REBASED):
        what = "which changes the base too, by an amount that is not in the folder"
        raise ModelError(f"the adapter {str(folder)!r} began as {start!r}, {what}; convert it to a plain LoRA by PEFT")
    unknown = [name for name, value in settings.items() if value and name not in _KNOWN]
    if unknown:
        name = unknown[0]
        raise ModelError(f"the adapter {str(folder)!r} has {name}={settings[name]!r}, which cannot be merged here")


def _of_module(patterns: object, module: str, otherwise: Any) -> Any:
    """What the first pattern says that a module's name ends with; `otherwise` if none does."""
    known = patterns if isinstance(patterns, dict) else {}
    return next((value for end, value in known.items() if re.match(rf"(.*\.)?({end})$", module)), otherwise)
