"""Drafts with the layer that a target's own checkpoint brings to predict further ahead (arXiv 2412.19437)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paceline.drafters._heads.chained import ChainedDrafter
from paceline.drafters.base import option, register


@register("mtp")
@dataclass(eq=False)
class MTPDrafter(ChainedDrafter):
    """Asks the layer for further tokens of Qwen3-Next, Qwen3.5, DeepSeek-V3, GLM-4.5 or MiMo, or one tuned apart."""

    path: str = option("", help="the folder of the target, or of a layer that was tuned apart")
    depth: int = option(4, ge=1, le=32, help="longest draft")
    width: int = option(2, ge=1, le=8, help="nodes extended at each depth")
    branch: int = option(2, ge=1, le=8, help="children proposed for each extended node")
    probe: bool = option(True, help="try the layer on the target first; false: read it as its configuration says")
    kind: ClassVar[str] = "mtp"
