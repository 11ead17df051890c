"""What every drafter with a published head does: find it, have it tried, and follow requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paceline.drafters.base import BaseDrafter, options_of
from paceline.engine.request import DraftLimits, Environment
from paceline.errors import ConfigError, DrafterError

if TYPE_CHECKING:
    from paceline.heads.adopting import Adopted

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
        from paceline.heads.prompting import prompts_for

        if environment.host is None:
            raise ConfigError(
                f"{self.name}: this target shows no head its hidden states; allowed: a transformers model"
            )
        folder = folder_of(self.name, self.path or environment.head or "")
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
