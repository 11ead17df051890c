"""The report as one HTML page that needs nothing else: no network, no fonts, no libraries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from paceline._version import __version__
from paceline.output import Output
from paceline.report.charts import Chart, acceptance_chart, reliability_chart, risk_chart, time_chart
from paceline.report.evaluate import Evaluation
from paceline.report.places import Place, acceptance, places, reliability
from paceline.report.views import KINDS, view


def page(outputs: Output | Sequence[Output], evaluation: Evaluation | None = None) -> str:
    """HTML about outputs of one model, and how well its uncertainty foretold error where that has been measured.

    Alternatives to a token are shown if `logprobs=5`, say, was asked for.
    """
    outputs = [outputs] if isinstance(outputs, Output) else outputs
    found = [place for output in outputs for place in places(output.steps, output.token_ids)]
    drafters = sorted({source for place in found for source in place.tree.sources})
    return template("template.html").render(
        version=__version__,
        about=_about(outputs, evaluation),
        outputs=[view(output, drafters) for output in outputs],
        drafters=drafters,
        kinds=KINDS,
        charts=_charts(outputs, found, drafters) if outputs else [],
        evaluation=evaluation,
        risk=_risk(evaluation),
    )


@cache
def template(name: str) -> Template:
    """A page to be filled in. Everything is escaped where it is inserted: texts and tokens may hold any markup."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("paceline.report", "."),
    ).get_template(name)


def _about(outputs: Sequence[Output], evaluation: Evaluation | None) -> dict[str, Any]:
    """The model and its numeric path, from the first output."""
    if not outputs:
        return {"model": evaluation.model if evaluation else "", "numerics": {}}
    return {"model": outputs[0].origin.model, "numerics": outputs[0].stats.numerics}


def _charts(outputs: Sequence[Output], found: Sequence[Place], drafters: Sequence[str]) -> list[Chart]:
    """All outputs together."""
    steps = [step for output in outputs for step in output.steps]
    seconds = [
        ("reading the prompt", sum(output.stats.prefill_seconds for output in outputs)),
        ("drafting", sum(step.draft_seconds for step in steps)),
        ("forward", sum(step.forward_seconds for step in steps)),
        ("committing", sum(step.commit_seconds for step in steps)),
    ]
    return [acceptance_chart(acceptance(found), drafters), reliability_chart(reliability(found)), time_chart(seconds)]


def _risk(evaluation: Evaluation | None) -> Chart | None:
    if evaluation is None:
        return None
    curves = [(score.measure, score.curve) for score in evaluation.scores]
    return risk_chart(curves, evaluation.error_rate)
