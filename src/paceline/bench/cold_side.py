"""One process of `paceline bench pacer --cold`: its first request is decoded under the pacer, as a user's would be.

Whatever that is compared with comes after it, in the same process and so on the same machine in the same minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

from paceline.bench.pacer import PACER, PLAIN, PacedContender, PacerPrompt, PacerSample, decode, fitting_ids, rotated
from paceline.bench.subject import Subject, load_subject
from paceline.bench.tasks import Task
from paceline.pacing import FixedPacer

_NUM_LEADERS = 2  # fixed contenders, best in one sweep, that are measured again in turns
_PLAIN = PacedContender(PLAIN, (), FixedPacer(0))


@contextmanager
def cold_side(
    model: str, dtype: str, device: str, draft_model: str | None
) -> Iterator[tuple[dict[str, Any], Callable[..., dict[str, Any]]]]:
    """A process that answers one question: how its first request went, and the others after it."""
    with load_subject(model, dtype, device, draft_model) as subject:
        yield {"numerics": subject.llm.target.numerics()}, partial(_visit, subject)


def _visit(subject: Subject, task: dict[str, Any], max_tokens: int, budgets: list[int], turns: int) -> dict[str, Any]:
    llm, known = subject.llm, Task(**task)
    prompt = PacerPrompt(known, fitting_ids(llm, known, max_tokens))
    paced = PacedContender(PACER, subject.drafters, llm.engine.pacer)
    first = decode(llm, prompt, paced, "first", max_tokens)
    _sweep(subject, prompt, budgets, max_tokens)
    contenders = [_PLAIN, *(_fixed(*_parts(name)) for name in leaders(prompt))]
    for turn in range(turns):
        for contender in rotated(contenders, turn):
            sample = decode(llm, prompt, contender, str(turn), max_tokens)
            prompt.timed.setdefault(contender.name, []).append(sample)
    return {
        "first_seconds": first.seconds,
        "num_tokens": len(first.tokens),
        "seconds": {name: [sample.seconds for sample in samples] for name, samples in prompt.timed.items()},
        "swept_seconds": {name: sample.seconds for name, sample in prompt.swept.items()},
        "stats": {key: value for key, value in first.stats.items() if key not in ("numerics", "memory")},
        "different": _different(prompt, first),
    }


def leaders(prompt: PacerPrompt) -> list[str]:
    """The fixed contenders that were fastest in the sweep, of those that had anything to say."""
    speaking = [name for name, sample in prompt.swept.items() if sample.num_drafts]
    return sorted(speaking, key=lambda name: prompt.swept[name].seconds)[:_NUM_LEADERS]


def _sweep(subject: Subject, prompt: PacerPrompt, budgets: Sequence[int], max_tokens: int) -> None:
    """Every drafter once at every length; at the first alone if it then has nothing to say."""
    prompt.swept[PLAIN] = decode(subject.llm, prompt, _PLAIN, "sweep", max_tokens)
    silent: set[str] = set()
    for drafter, budget in product(subject.drafters, budgets):
        if drafter not in silent:
            contender = _fixed(drafter, budget)
            sample = prompt.swept[contender.name] = decode(subject.llm, prompt, contender, "sweep", max_tokens)
            if not sample.num_drafts:
                silent.add(drafter)


def _fixed(drafter: str, budget: int) -> PacedContender:
    return PacedContender(f"{drafter} {budget}", (drafter,), FixedPacer(budget))


def _parts(name: str) -> tuple[str, int]:
    drafter, _, budget = name.rpartition(" ")
    return drafter, int(budget)


def _different(prompt: PacerPrompt, first: PacerSample) -> list[str]:
    """Contenders with other tokens or log-probabilities than plain decoding."""
    outputs = [(PACER, first), *prompt.swept.items(), *((n, s) for n, found in prompt.timed.items() for s in found)]
    plain = prompt.swept[PLAIN]
    return sorted({n for n, s in outputs if (s.tokens, s.logprobs) != (plain.tokens, plain.logprobs)})
