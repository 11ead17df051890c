"""`paceline doctor`: what to expect on one's own text before deploying, and what to change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from paceline.bundled import draft_model_of
from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DRAFT_MODEL, DTYPE, HEAD
from paceline.console import Table, progress, show, write_json
from paceline.errors import ModelError

if TYPE_CHECKING:
    from paceline.doctor.facts import DraftModel, Facts
    from paceline.doctor.visit import Visit
    from paceline.llm import LLM

_COLOURS = {"problem": "red", "advice": "yellow", "fact": "green"}


def doctor(
    model: str = typer.Argument(None, help="Bundled name, hub name or folder.", show_default="paceline-tiny"),
    prompts: Path = typer.Option(None, help='Lines {"prompt": ..., "output": ...}.', show_default="the bundled ones"),
    draft_model: str = DRAFT_MODEL,
    head: str = HEAD,
    max_tokens: int = typer.Option(64, min=1, help="Tokens to decode where no output is given."),
    dtype: str = DTYPE,
    device: str = DEVICE,
    json: Path = typer.Option(None, "--json", help="Write all figures to this file."),
) -> None:
    """Predict acceptance and speed-up on your own text, and say what to change."""
    from paceline.doctor.diagnosis import diagnose
    from paceline.doctor.facts import gather
    from paceline.doctor.questions import read_questions
    from paceline.doctor.visit import examine, num_units

    questions = read_questions(prompts)
    with load_with_progress(model, dtype=dtype, device=device, drafters="none", head=head) as llm:
        drafters, known = _choose(llm, draft_model)
        with progress("recording and replaying", num_units(questions)) as advance:
            visit = examine(llm, questions, max_tokens, drafters, advance)
        facts = gather(llm, visit, known)
        findings = diagnose(facts)
    show(_table(model or "the bundled model", visit))
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(f"[{_COLOURS[finding.severity]}]{finding.severity}[/]:", escape(str(finding)))
    write_json(json, _as_json(visit) | {"machine": _machine(facts), "findings": [vars(f) for f in findings]})


def _choose(llm: LLM, draft: str | None) -> tuple[list[str], DraftModel | None]:
    """The drafters that a user gets unasked, with the draft model unless it is refused."""
    from paceline.doctor.facts import draft_model
    from paceline.drafters.base import automatic, make
    from paceline.engine.request import Environment

    known = os.path.expanduser(draft) if draft else draft_model_of(llm.info.name) if llm.info else None
    tokenizer = llm.tokenizer.inner if llm.tokenizer else None
    device = str(llm.target.numerics()["device"])
    environment = Environment(tokenizer, llm.target.vocab_size, device, known)
    if known is None:
        return automatic(environment), None
    others = automatic(Environment(tokenizer, llm.target.vocab_size, device, None))
    own = [f"{name}:path={known}" for name in automatic(environment) if name not in others]
    try:
        for spec in own:
            drafter = make(spec)
            drafter.attach(environment)
            drafter.close()
    except ModelError as error:
        return others, draft_model(known, str(error))
    return others + own, draft_model(known)


def _table(name: str, visit: Visit) -> Table:
    columns = ("text", "prompts", "tokens", "speed-up", "tokens a step", "accepted of drafted")
    table = Table(f"{name}: what to expect under the pacer", columns)
    for category in (*visit.categories, None):
        found = visit.prediction(category)
        figures = (found.speedup, found.mean_acceptance_length, found.acceptance_rate)
        counts = (str(found.num_prompts), str(found.num_tokens))
        table.rows.append((category or "all together", *counts, *(str(figure) for figure in figures)))
    table.notes.append("Over plain decoding, prefill left out; in brackets where a measured figure will be, 19 of 20")
    return table


def _machine(facts: Facts) -> dict[str, Any]:
    assert facts.load is not None  # since it was gathered
    return {
        "cores": facts.cores,
        "busy_elsewhere": facts.load.busy_elsewhere,
        "is_busy": facts.load.is_busy,
        "forward_seconds": facts.load.pace.usual,
        "quickest_forward_seconds": facts.load.pace.quickest,
        "slowdown": facts.load.pace.slowdown,
    }


def _as_json(visit: Visit) -> dict[str, Any]:
    found = {category: visit.prediction(category).as_dict() for category in visit.categories}
    return {"prediction": visit.prediction().as_dict(), "by_category": found}
