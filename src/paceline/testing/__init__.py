"""Public fakes of both ports."""

from paceline.testing.fakes import Proposal, ScriptedDrafter, ScriptedTarget, chain

__all__ = ["Proposal", "ScriptedDrafter", "ScriptedTarget", "chain"]
