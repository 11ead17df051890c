"""From a prompt and choices to what has to be read, and back to probabilities. Callers' threads run this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paceline.deciding.choices import Choice, Path, masses
from paceline.errors import RequestError
from paceline.options import Call
from paceline.scoring import Cut, Scoring
from paceline.text.seam import Given


@dataclass(frozen=True)
class Question:
    """The spellings of all choices of one prompt, as tokens, and the requests that read them."""

    cuts: Mapping[Path, Cut]
    owners: Mapping[Path, str]  # the choice that each spells
    names: Sequence[str]
    is_closed: bool  # whether something has to stand behind them

    def logprobs(self) -> dict[str, float]:
        """The log-probability of each choice as a text, in nats, once the requests have ended."""
        values = {path: cut.logprob for path, cut in self.cuts.items()}
        if not self.is_closed:
            return masses(self.owners, values, self.names)
        # What ends behind one spelling does not end behind another: none is part of another then.
        closed = {(*path, -1): values[path] + cut.end_logprob for path, cut in self.cuts.items()}
        return masses({(*path, -1): name for path, name in self.owners.items()}, closed, self.names)


def question(
    scoring: Scoring, prompt: Given, choices: Sequence[Choice], end: Sequence[str] | None, call: Call
) -> Question:
    """The question which of some choices goes on a prompt.

    Raises:
        ContextLengthError, RequestError: as in `LLM.decide`.
    """
    texts = [(choice.name, text) for choice in choices for text in choice.spellings]
    ends = () if end is None else scoring.ends(end)
    cuts = scoring.cuts(prompt, [text for _, text in texts], call, ends)
    owners: dict[Path, str] = {}
    for (name, text), cut in zip(texts, cuts, strict=True):
        if owners.setdefault(cut.tokens, name) != name:
            raise RequestError(f"{text!r} has the tokens of a spelling of {owners[cut.tokens]!r}; allowed: others")
    return Question({cut.tokens: cut for cut in cuts}, owners, [choice.name for choice in choices], end is not None)
