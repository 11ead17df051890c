"""Pacing: what a step costs, what a draft is worth, and how much of it to verify. docs/pacing.md tells the story."""

from paceline.pacer.base import Pacing
from paceline.pacer.cache import forward_costs
from paceline.pacer.costs import CostTable, ForwardCost
from paceline.pacer.fixed import FixedPacer
from paceline.pacer.paced import MAX_SLOWDOWN, Pacer

__all__ = ["MAX_SLOWDOWN", "CostTable", "FixedPacer", "ForwardCost", "Pacer", "Pacing", "forward_costs"]
