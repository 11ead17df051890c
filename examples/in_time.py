"""What is asked of a vehicle, and how sure is that? The best answer when time is up, with its probability.

    python examples/in_time.py "book a table for six in Chicago tonight" --milliseconds 80

First comes what decides: which kind of command it is, one forward or two for all kinds together. Then come its details,
for as long as there is time and the model is sure of them. Whoever asks gets what there is by then, never later.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import paceline

KINDS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
LEAST = 0.8  # below this nothing is done, and the passenger is asked again


@dataclass(frozen=True)
class Answer:
    """The best that is known: a kind of command, its details so far, and how likely each is."""

    kind: str | None = None
    probability: float = 0.0
    details: str = ""
    details_probability: float = 1.0
    ended: str = "time was up before anything was known"


def answer(llm: paceline.LLM, command: str, seconds: float) -> Answer:
    """What a command asks for, as far as it is known after some seconds."""
    end = time.monotonic() + seconds
    prompt = f'Command: {command}\nJSON: {{"intent": "'
    try:
        decision = llm.decide(prompt, KINDS, abstain=LEAST, deadline_ms=_left(end))
    except paceline.DeadlineError:
        return Answer()
    kind = decision.choice
    if kind is None:
        return Answer(None, max(decision.probabilities.values()), ended=decision.reason)
    known = Answer(kind, decision.probabilities[kind], ended="time was up before any detail was known")
    try:
        details = llm.generate(
            f'{prompt}{kind}", "slots":', max_tokens=48, stop="}", stop_when="uncertain", deadline_ms=_left(end)
        )
    except paceline.DeadlineError:
        return known
    chance = math.exp(sum(token.logprob for token in details.tokens))
    return Answer(kind, known.probability, details.text.strip(), chance, _ending(details))


def _left(end: float) -> float:
    """Milliseconds until a moment; a little where there are none, which is refused at once."""
    return max((end - time.monotonic()) * 1e3, 1e-3)


def _ending(details: paceline.Output) -> str:
    if details.stopped is not None:
        return f"the model became unsure: {details.stopped.reason}"
    return "time was up" if details.stop_reason == "deadline" else "it was said in full"


def main() -> None:
    """One command, answered in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command")
    parser.add_argument("--milliseconds", type=float, default=200.0)
    given = parser.parse_args()
    with paceline.LLM() as llm:
        answer(llm, given.command, 5.0)  # what is prepared at first use does not count
        began = time.monotonic()
        found = answer(llm, given.command, given.milliseconds / 1e3)
        taken = (time.monotonic() - began) * 1e3
    print(f"{found.kind or 'ask again'} ({found.probability:.0%}): {found.details} ({found.details_probability:.0%})")
    print(f"{found.ended}; {taken:.0f} ms")


if __name__ == "__main__":
    main()
