"""`paceline report`: where the model was unsure, as an HTML page, and how well that foretells error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from paceline.bundled import COMMANDS
from paceline.cli.loading import fitting, load_with_progress
from paceline.cli.options import DEVICE, DRAFT_MODEL, DRAFTERS, DTYPE, MODEL, parse_drafters
from paceline.console import progress
from paceline.errors import ConfigError
from paceline.pacing import MAX_SLOWDOWN
from paceline.params import SamplingParams

if TYPE_CHECKING:
    from paceline.llm import LLM
    from paceline.output import Output
    from paceline.report.evaluate import Evaluation
    from paceline.report.fields import Command

_ALTERNATIVES = 5
_COLUMNS = ("measure", "AUROC", "95 %", "of slots alone", "95 %", "AURC", "wrong among the surest half")


def report(
    prompts: list[str] = typer.Argument(None, help="The texts to continue; - reads one from standard input."),
    model: str = MODEL,
    drafters: list[str] = DRAFTERS,
    draft_model: str = DRAFT_MODEL,
    max_tokens: int = typer.Option(256, min=1, help="Most tokens to generate."),
    temperature: float = typer.Option(0.0, help="0 is greedy."),
    seed: int = typer.Option(None, help="Same seed, same text.", show_default="drawn"),
    max_slowdown: float = typer.Option(MAX_SLOWDOWN, help="As in generate; at 10 drafters are asked nearly always."),
    out: Path = typer.Option(None, help="Where the page goes.", show_default="report.html, if there are prompts"),
    evaluate: bool = typer.Option(False, "--evaluate", help="Measure how well uncertainty foretells error."),
    commands: Path = typer.Option(COMMANDS, help="What to evaluate on.", show_default="bundled held-out commands"),
    decisions: Path = typer.Option(None, help="Show decisions on one page, as `paceline calibrate` writes them."),
    dtype: str = DTYPE,
    device: str = DEVICE,
) -> None:
    """Continue PROMPTS and show on one page where the model was unsure, who drafted what, and what it took."""
    if decisions is not None:
        _report_decisions(decisions, out or Path("report.html"), is_alone=not prompts and not evaluate)
        return
    if not prompts and not evaluate:
        raise ConfigError("there is nothing to report on; allowed: prompts, --evaluate, or both")
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts or []]
    sampling: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    sampling["logprobs"] = _ALTERNATIVES
    SamplingParams(**sampling)  # refused before the model is loaded
    path = _writable(out or Path("report.html")) if out or texts else None
    chosen, known = parse_drafters(drafters), _read(commands) if evaluate else []
    drafting = {"drafters": chosen, "draft_model": draft_model}
    with load_with_progress(model, dtype=dtype, device=device, max_slowdown=max_slowdown, **drafting) as llm:
        outputs = _decode(llm, texts, sampling)
        evaluation = _evaluate(llm, drafting, known) if evaluate else None
    _write(path, outputs, evaluation)
    if evaluation is not None:
        _show(evaluation)


def _report_decisions(decisions: Path, out: Path, is_alone: bool) -> None:
    """Another page, for which no model is needed."""
    from paceline.deciding.labelled import read_decided
    from paceline.report.decided import decisions_page, facts

    if not is_alone:
        raise ConfigError("--decisions is given with prompts or --evaluate; allowed: alone, with --out")
    decided = read_decided(decisions)
    _write_text(_writable(out), decisions_page(decided))
    for name, value in facts(decided):
        print(f"{name}: {value}")
    print(out)


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out is {str(path)!r}: {error}; allowed: a file that can be written") from error


def _decode(llm: LLM, texts: Sequence[str], sampling: dict[str, Any]) -> list[Output]:
    if not texts:
        return []
    ids = [llm.encode(text) for text in texts]
    sampling["max_tokens"] = fitting(llm, max(map(len, ids)), sampling["max_tokens"])
    with Console(stderr=True).status("decoding"):
        outputs: list[Output] = llm.generate(ids, **sampling)
    return outputs


def _read(path: Path) -> list[Command]:
    from paceline.report.fields import read_commands

    return read_commands(path)


def _evaluate(llm: LLM, drafting: dict[str, Any], commands: Sequence[Command]) -> Evaluation:
    """The evaluation under a pacer that asks every drafter at every step, so that its figures never depend on time."""
    from paceline.llm import LLM
    from paceline.report.evaluate import evaluate

    asking = LLM.from_target(llm.target, llm.tokenizer, info=llm.info, **drafting)
    with asking, progress("answering commands", len(commands)) as advance:
        return evaluate(asking, commands, advance)


def _writable(path: Path) -> Path:
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"--out is {str(path)!r}; allowed: a file in a folder that exists")
    return path


def _write(path: Path | None, outputs: Sequence[Output], evaluation: Evaluation | None) -> None:
    from paceline.report import page, uncertain_spans

    if path is None:
        return
    _write_text(path, page(outputs, evaluation))
    for output in outputs:
        spans = uncertain_spans(output)
        inside = sum(map(len, spans))
        print(f"{len(output.tokens)} tokens, {inside} of them in {len(spans)} areas of high uncertainty")
    print(path)


def _show(evaluation: Evaluation) -> None:
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for row in evaluation.table:
        table.add_row(*row)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(evaluation.sentence)
    console.print(f"By chance the AURC would be {evaluation.error_rate:.3f}, at best {evaluation.least_aurc:.3f}.")
    console.print("Uncertainty is not error: the page (--out) lists fields that were sure and wrong.")
