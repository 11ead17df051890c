"""Public fakes of both ports, what wraps a port, and a recorder of what is decoded."""

from paceline.testing.fakes import Proposal, ScriptedDrafter, ScriptedTarget, chain
from paceline.testing.recorder import RandomTrees, Recorder
from paceline.testing.wrapped import WrappedPacer, WrappedTarget

__all__ = [
    "Proposal",
    "RandomTrees",
    "Recorder",
    "ScriptedDrafter",
    "ScriptedTarget",
    "WrappedPacer",
    "WrappedTarget",
    "chain",
]
