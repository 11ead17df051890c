"""Pacing: what a step costs, what a draft is worth, and how much of it to verify. docs/pacing.md tells the story."""

from paceline.engine.ports import Pacer
from paceline.pacing.costs import CostTable, ForwardCost
from paceline.pacing.fixed import FixedPacer
from paceline.pacing.measuring import cost_table, experience_file, measure
from paceline.pacing.pacer import MAX_SLOWDOWN, AdaptivePacer

__all__ = [
    "MAX_SLOWDOWN",
    "AdaptivePacer",
    "CostTable",
    "FixedPacer",
    "ForwardCost",
    "Pacer",
    "cost_table",
    "experience_file",
    "measure",
]
