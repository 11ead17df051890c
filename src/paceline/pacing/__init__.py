"""Pacing: what a step costs, what a draft is worth, and how much of it to verify. docs/pacing.md tells the story."""

from paceline.engine.ports import Pacer
from paceline.pacing.costs import CostTable, ForwardCost
from paceline.pacing.fixed import FixedPacer
from paceline.pacing.measuring import experience_file, forward_costs
from paceline.pacing.pacer import MAX_SLOWDOWN, AdaptivePacer

__all__ = [
    "MAX_SLOWDOWN",
    "AdaptivePacer",
    "CostTable",
    "FixedPacer",
    "ForwardCost",
    "Pacer",
    "experience_file",
    "forward_costs",
]
