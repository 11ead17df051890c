"""What a drafter's step costs here, in plain steps: rows by the target's cost table, a draft as the engine times it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paceline.llm import LLM
from paceline.pacing import FixedPacer, ForwardCost
from paceline.pacing.measuring import measure

CONTEXT = 128  # tokens before the rows
_TOKENS = 64  # decoded to time drafts


@dataclass(frozen=True)
class Costs:
    """Seconds of the target's forwards by row count, behind `CONTEXT` tokens."""

    forwards: dict[int, float]

    @classmethod
    def of(cls, llm: LLM) -> Costs:
        """Measured now, within about two seconds."""
        target = llm.target
        return cls.from_table(llm.runtime.thread.call(lambda: measure(target)))

    @classmethod
    def from_table(cls, table: dict[int, ForwardCost]) -> Costs:
        """Of a table that was measured."""
        return cls({rows: cost.at(CONTEXT) for rows, cost in sorted(table.items())})

    @property
    def plain(self) -> float:
        """Seconds of a forward of one row."""
        return self.forwards[min(self.forwards)]

    def verification(self, num_drafted: int) -> float:
        """A forward over a pending token and so many drafted, in plain steps."""
        rows = num_drafted + 1
        count = next((count for count in self.forwards if count >= rows), max(self.forwards))
        return self.forwards[count] * -(-rows // count) / self.plain

    def step(self, num_drafted: int, draft_seconds: float) -> float:
        """A drafted step, in plain steps."""
        return self.verification(num_drafted) + draft_seconds / self.plain


def draft_seconds(llm: LLM, drafter: str, prompts: Sequence[Sequence[int]]) -> float:
    """Seconds of a proposal of the chain that is judged, as the engine bills it while it decodes some prompts."""
    spent = asked = 0.0
    for ids in prompts:
        out = llm.generate(list(ids), drafters=[drafter], pacer=FixedPacer(), max_tokens=_TOKENS, ignore_eos=True)
        [account] = out.stats.drafters.values()
        spent, asked = spent + account.seconds, asked + account.num_proposals
    return spent / max(asked, 1.0)


def spec_of(folder: Path) -> str:
    """How the drafter of a head that may hardly be trained yet is asked for: as it is, and as it stays."""
    return f"block:path={folder},probe=false,learn=false"
