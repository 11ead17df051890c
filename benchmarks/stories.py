"""The bundled story prompts decoded in several ways, in turns, each output compared with plain decoding's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from paceline.bench.tasks import read_tasks
from paceline.bench.timing import ratio_of_sums
from paceline.console import Table, progress
from paceline.engine.request import fresh_tenant
from paceline.llm import LLM

CHAIN = 7
PLAIN, AGAIN, MODEL, MODEL_CHAIN = "plain", "plain again", "draft model", "draft model, a chain of 7"


def decoded(llm: LLM, options: dict[str, dict[str, Any]], temperature: float, args: Any) -> dict[str, Any]:
    """Each way's figures: times plain, tokens a step, milliseconds of a step and of a proposal."""
    prompts = [task.prompt for task in read_tasks(None) if task.task.startswith("story")][: args.prompts]
    seconds = {way: np.zeros((len(prompts), args.rounds)) for way in options}
    outputs: dict[str, list[Any]] = {way: [] for way in options}
    with progress(f"decoding at temperature {temperature:g}", len(prompts) * args.rounds) as bar:
        for turn in range(args.rounds * len(prompts)):
            number, index = divmod(turn, len(prompts))
            for way in random.Random(turn).sample(list(options), len(options)):
                how = {"temperature": temperature, "max_tokens": args.tokens, "seed": 7, **options[way]}
                output = llm.generate(prompts[index], ignore_eos=True, tenant=fresh_tenant(), **how)
                seconds[way][index, number] = output.stats.decode_seconds
                outputs[way].append(output)
            assert len({outputs[way][-1].token_ids for way in options}) == 1, f"a way changed prompt {index}"
            bar()
    return {
        way: {"x plain": ratio_of_sums(seconds[PLAIN], taken).as_dict(), **_steps(outputs[way])}
        for way, taken in seconds.items()
    }


def _steps(outputs: list[Any]) -> dict[str, float]:
    """Means over all steps of a way's outputs."""
    stats = [output.stats for output in outputs]
    steps = sum(s.num_steps for s in stats)
    asked = [drafter for s in stats for drafter in s.drafters.values() if drafter.num_proposals]
    proposals = sum(drafter.num_proposals for drafter in asked)
    return {
        "tokens a step": sum(s.num_emitted_tokens for s in stats) / steps,
        "ms a step": 1e3 * sum(s.decode_seconds for s in stats) / steps,
        "ms a proposal": 1e3 * sum(drafter.seconds for drafter in asked) / max(proposals, 1),
    }


def table_of(title: str, figures: dict[str, Any]) -> Table:
    """A row for each way."""
    columns = ("way", "x plain", "tokens a step", "ms a step", "ms a proposal")
    rows = [(way, text(of["x plain"]), *(f"{of[name]:.2f}" for name in columns[2:])) for way, of in figures.items()]
    return Table(title, columns, rows=rows)


def text(found: dict[str, float]) -> str:
    """A ratio with its interval."""
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f}) x"
