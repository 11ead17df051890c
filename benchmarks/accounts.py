"""The guard's two accounts over ten requests of a fresh engine, drawn: what drafting has saved or lost, and may lose.

usage: python benchmarks/accounts.py [--out docs/accounts.svg]

The bundled target grown to 134 M parameters decodes texts that draft well and noise, on which nothing can be drafted,
one after the other. Nothing is known at first: the cache folder is empty. Each request is decoded plainly afterwards,
which the pacer does not see: so much for what plain decoding really takes. A picture needs pip install
'paceline[bench]'.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from plots.accounts import Balance, Books, draw_books
from plots.figure import check_output

from paceline.bench.pacer import PLAIN, PacedContender, PacerPrompt, decode, fitting_ids
from paceline.bench.subject import INFLATED, Subject, load_subject
from paceline.bench.tasks import Task, read_tasks
from paceline.engine.ports import StepTimes
from paceline.engine.request import Request, StepOutcome
from paceline.errors import PacelineError
from paceline.pacing import AdaptivePacer, FixedPacer
from paceline.pacing.guard import Account
from paceline.testing import WrappedPacer

ORDER = ("noise", "noise", "story", "noise", "command", "copy", "story", "edit", "noise", "maths")

app = typer.Typer(add_completion=False)


class AccountingPacer(WrappedPacer):
    """A pacer as it is, with what its accounts held at first and after each step."""

    def __init__(self, inner: AdaptivePacer) -> None:
        super().__init__(inner)
        self.guard = inner.guard
        self.engine: list[Balance] = []
        self.requests: list[list[Balance]] = []  # of each request its own account
        self._num_tokens = 0

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        super().start(request, prefill)
        self.requests.append([])
        self._enter(request)

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`: here of one request at a time."""
        super().observe(outcomes, times)
        [outcome] = outcomes
        self._num_tokens += len(outcome.tokens)
        self._enter(outcome.request)

    def _enter(self, request: Request) -> None:
        self.engine.append(self._balance(self.guard.engine))
        self.requests[-1].append(self._balance(self.guard.account(request)))

    def _balance(self, account: Account) -> Balance:
        limit = account.bound - account.cost_error - account.plain
        return Balance(self._num_tokens, account.plain - account.elapsed, account.balance - limit, -limit)


@app.command()
def accounts(
    model: str = typer.Option(INFLATED, help="What decodes, as in paceline bench pacer."),
    max_tokens: int = typer.Option(96, min=2, help="Output tokens of each request."),
    out: Path = typer.Option(Path("docs/accounts.svg"), help="A PNG or SVG."),
) -> None:
    """Decode, say how the clock compares with the books, and draw."""
    check_output(out)
    with _empty_cache(), load_subject(model, "bfloat16") as subject:
        books, plain = _decoded(subject, _in_order(read_tasks(None)), max_tokens)
    saved = books.engine[-1].by_the_clock
    print(f"saved: {saved:.2f} s by the clock, {books.engine[-1].by_the_books:.2f} s by the books")
    print(f"plain: {books.plain:.2f} s by the account, {plain:.2f} s in truth, prefill included in both")
    print(f"least balance: engine {books.least(books.engine) * 1e3:.1f} ms", end="; requests ")
    print(", ".join(f"{books.least(one) * 1e3:.1f}" for one in books.requests), "ms")
    draw_books(books, out)


def _decoded(subject: Subject, tasks: Sequence[Task], max_tokens: int) -> tuple[Books, float]:
    """The accounts after every step, and the seconds that plain decoding of the same requests took."""
    pacer = subject.llm.engine.pacer
    assert isinstance(pacer, AdaptivePacer)
    watched, plain = AccountingPacer(pacer), 0.0
    contenders = PacedContender("pacer", subject.drafters, watched), PacedContender(PLAIN, (), FixedPacer(0))
    for number, task in enumerate(tasks):
        prompt = PacerPrompt(task, fitting_ids(subject.llm, task, max_tokens))
        paced, undrafted = (decode(subject.llm, prompt, one, str(number), max_tokens) for one in contenders)
        if paced.tokens != undrafted.tokens:
            sys.exit(f"accounts: not the bytes of plain decoding after {task.prompt[-60:]!r}")
        plain += float(undrafted.stats["prefill_seconds"] + undrafted.stats["decode_seconds"])
    names = [task.task for task in tasks]
    return Books(names, watched.engine, watched.requests, watched.guard.engine.plain), plain


def _in_order(tasks: Sequence[Task]) -> list[Task]:
    """One prompt for each name of `ORDER`, none twice."""
    prompts = {name: iter([task for task in tasks if task.task == name]) for name in ORDER}
    return [next(prompts[name]) for name in ORDER]


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A cache folder with nothing in it, for as long as this lasts."""
    known = dict(os.environ)
    with TemporaryDirectory() as folder:
        os.environ["PACELINE_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(known)


if __name__ == "__main__":
    try:
        app()
    except PacelineError as error:
        sys.exit(f"accounts: {error}")
