"""What every drafter with a published head does: find it, have it tried, and follow requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paceline.bundled import PROMPTS
from paceline.drafters.base import BaseDrafter, options_of
from paceline.engine.request import DraftLimits, Environment
from paceline.errors import ConfigError, DrafterError

if TYPE_CHECKING:
    from paceline.heads.adopting import Adopted

_NUM_PROMPTS = 8
_LONGEST_PROMPT = 84  # tokens, with a chat's template: what is longer would be cut (heads/seen.py)
_NAMES_A_HEAD = ("path", "probe")  # options that say where it is


class HeadDrafter(BaseDrafter):
    """A drafter whose head lies in a folder. Subclasses are dataclasses with the options `path` and `probe`."""

    reads_hidden_states: ClassVar[bool] = True
    prior_tokens: ClassVar[float] = 2.0  # a head that has passed its trial is right more often than not
    kind: ClassVar[str]
    path: str
    probe: bool
    _digest = ""

    @property
    def identity(self) -> str:
        """See `BaseDrafter`: the head's own weights, wherever they lie, and the options."""
        options = [f"{f.name}={getattr(self, f.name)!r}" for f in options_of(type(self)) if f.name not in _NAMES_A_HEAD]
        return f"{type(self).name}({self._digest}, {', '.join(options)})"

    def _adopt(self, environment: Environment) -> Adopted:
        """The head of the folder, tried on the target.

        Raises:
            ConfigError: no folder, a head of another kind, or a target that takes no heads.
            ModelError: there is no head, or it does not fit the target.
        """
        from paceline.heads.adopting import adopt

        if environment.host is None:
            raise ConfigError(
                f"{self.name}: this target shows no head its hidden states; allowed: a transformers model"
            )
        folder = folder_of(self.name, self.path or environment.head)
        prompts = prompts_for(environment.tokenizer)
        found = adopt(folder, self.kind, environment.host, prompts, self.probe)
        self._digest = found.digest
        return found

    def _refuse_detached(self) -> DrafterError:
        return DrafterError(f"the {self.name} drafter is not attached to an engine, or was closed")


def folder_of(name: str, path: Any) -> Path:
    """The folder that a path names. ConfigError if there is none."""
    folder = Path(path or "").expanduser()
    if not path or not folder.is_dir():
        raise ConfigError(f"{name}: path is {path!r}; allowed: a folder with a head's config.json and safetensors")
    return folder


def within(limits: DraftLimits, depth: int) -> DraftLimits:
    """Limits that are no deeper than a head is asked to look."""
    return limits if limits.max_depth <= depth else replace(limits, max_depth=depth)


def target_ids(head: Any) -> NDArray[np.int64] | None:
    """The target's token of each of a head's; None where they are the same."""
    return None if head.d2t is None else np.ascontiguousarray(head.d2t.cpu().numpy(), np.int64)


def prompts_for(tokenizer: Any) -> Sequence[Sequence[int]]:
    """What the target goes on with while a head is tried: a few of the bundled prompts, of all kinds.

    Two of four are asked as a user of a chat would, where the target has a template for it.
    """
    if tokenizer is None:
        return []
    lines = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    chosen = lines[:: max(len(lines) // _NUM_PROMPTS, 1)][:_NUM_PROMPTS]
    read = [tokenizer(text, verbose=False)["input_ids"] for text in chosen]
    if getattr(tokenizer, "chat_template", None):
        read = [
            _asked(tokenizer, text, ids) if i % 4 > 1 else ids
            for i, (text, ids) in enumerate(zip(chosen, read, strict=True))
        ]
    return [ids for ids in read if ids]


def _asked(tokenizer: Any, text: str, ids: Sequence[int]) -> Sequence[int]:
    """A text as a message of a user's; the text alone where the template does not take it, or says much itself."""
    with suppress(Exception):  # templates are programs of others
        message = [{"role": "user", "content": text}]
        made = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
        return made if len(made) <= _LONGEST_PROMPT else ids
    return ids
