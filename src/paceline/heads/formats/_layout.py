"""What a file of this folder says of the layout that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from paceline.heads.formats._files import HeadFiles


@dataclass
class Opened:
    """A head as its files have it, and what they leave open."""

    module: Any  # BlockHead, ChainedHead or MedusaHead
    vocabularies: list[torch.Tensor] = field(default_factory=list)  # see `target_ids`

    def __post_init__(self) -> None:
        """The first reading is the head's."""
        if self.vocabularies:
            self.module.d2t = self.vocabularies[0]


@dataclass(frozen=True)
class Layout:
    """One writer's way to lay a head out in a folder. Of all layouts no two fit one folder."""

    name: str  # in messages
    fits: Callable[[HeadFiles], bool]  # by the configuration and the names of tensors alone
    open: Callable[[HeadFiles], Opened]
