"""Our own goals: what the figures of `paceline bench` are to reach, and whether those in a file do.

usage: python benchmarks/goals.py FILE...

The files are those that `paceline bench step|decode|pacer|busy|load|doctor --json FILE`, `paceline bench serve --sweep
1,4,16 --json FILE`, and `benchmarks/step.py --json FILE`, write.
Exit code 0: every line is reached. 1: some line is not. 2: a file that cannot be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from goal import Content, Goal, print_goals
from pacing_goals import cold_goals, pacer_goals, row_goals
from quantised_goals import quantised_step_goals
from serve_goals import serve_goals

from paceline.bench.load import FIRST, LATER
from paceline.bench.names import PLAIN
from paceline.bench.timing import Ratio, ratio
from paceline.bundled import DEFAULT_TARGET

# bench step

# dtype -> rows and the most that they may cost, in times one row
COSTS: dict[str, tuple[tuple[int, float], ...]] = {
    "bfloat16": ((8, 1.1), (16, 1.25), (32, 1.7)),
    "float32": ((16, 1.2),),
}
OF_BANDWIDTH = 0.85
ONE_ROW = 1.25  # times llama.cpp's one row
Rows = Mapping[int, Content]


def step_goals(content: Content) -> list[Goal]:
    """The lines of the 134m shape; none for other models, or where one row was not measured."""
    rows = {row["rows"]: row for row in content["rows"] if row["paceline_seconds"]}
    if content.get("shape") != "134m" or 1 not in rows:
        return []
    one, dtype = rows[1], content["numerics"]["dtype"]
    lines = [_cost(rows, count, limit) for count, limit in COSTS.get(dtype, ()) if count in rows]
    against = ratio(one["paceline_seconds"], one["transformers_seconds"])
    lines.append(Goal("1 row is no slower than transformers' 1 row", f"{against} x its time", against.value <= 1.0))
    lines += _linears(content.get("linear_bandwidth_shares", {}))
    return lines + (_beside_llamacpp(rows) if dtype == "bfloat16" else [])


def _cost(rows: Rows, count: int, limit: float) -> Goal:
    cost = ratio(rows[count]["paceline_seconds"], rows[1]["paceline_seconds"])
    return Goal(f"{count} rows cost at most {limit} x 1 row", f"{cost} x", cost.value <= limit)


def _linears(shares: Mapping[str, float]) -> list[Goal]:
    """Of `benchmarks/step.py` alone, by row count."""
    if not shares:
        return []
    figure = ", ".join(f"{share:.0%} at {rows}" for rows, share in shares.items())
    counts = [int(rows) for rows in shares]
    text = f"linears alone read at least {OF_BANDWIDTH:.0%} of the bandwidth at {min(counts)} to {max(counts)} rows"
    return [Goal(text, figure, min(shares.values()) >= OF_BANDWIDTH)]


def _beside_llamacpp(rows: Rows) -> list[Goal]:
    """Of `benchmarks/step.py` alone, where llama.cpp is installed."""
    theirs = {count: row["others"]["llama.cpp"] for count, row in rows.items() if "llama.cpp" in row["others"]}
    against = {count: ratio(rows[count]["paceline_seconds"], seconds) for count, seconds in theirs.items()}
    lines = []
    if 1 in against:
        text = f"1 row costs at most {ONE_ROW} x llama.cpp's 1 row"
        lines.append(Goal(text, f"{against[1]} x", against[1].value <= ONE_ROW))
    many = {count: found for count, found in against.items() if count > 1}
    if many:
        worst = max(many, key=lambda count: many[count].value)
        figure = f"at worst {many[worst]} x its time, at {worst} rows"
        lines.append(Goal("from 2 rows on faster than llama.cpp", figure, many[worst].value < 1.0))
    return lines


# bench decode


def decode_goals(content: Content) -> list[Goal]:
    """The lines at temperature 0: two for every model, the rest for the bundled target."""
    return [line for run in content["runs"] if run["plan"]["temperature"] == 0.0 for line in _run_goals(run)]


def _run_goals(run: Content) -> list[Goal]:
    contenders = {entry["name"]: entry for entry in run["contenders"]}
    lines = [_plain(contenders[PLAIN], run["bare_forward_share"]), _collecting(contenders[PLAIN], run)]
    if run["model"] == DEFAULT_TARGET:
        lines.append(_best_fixed(contenders[run["best_fixed"]]))
        lines += [_host_share(contenders[name]) for name in (PLAIN, _best_on_host(contenders))]
    return lines


def _plain(plain: Content, share: float) -> Goal:
    over = plain["over_generate"]
    ceiling = f"a bare transformers forward is {share:.0%} of generate's step, so {1 / share:.2f} x at most with it"
    figure = f"{_at_worst(over):.2f} x ({_medians(over)}); {ceiling}"
    return Goal("plain Paceline is at least 2 x transformers generate", figure, _at_worst(over) >= 2.0)


def _best_fixed(best: Content) -> Goal:
    over = best["over_plain"]
    figure = f"{_at_worst(over):.2f} x ({_medians(over)}) with {best['name']}"
    text = "the best fixed contender is at least 1.5 x plain over the prompts"
    return Goal(text, figure, _at_worst(over) >= 1.5)


def _host_share(contender: Content) -> Goal:
    steps = contender["steps"]
    figure = f"{steps['outside_share']:.1%} of {steps['step_seconds'] * 1e3:.2f} ms"
    text = f"time outside the forward is at most 15 % of a step ({contender['name']})"
    return Goal(text, figure, steps["outside_share"] <= 0.15)


def _collecting(plain: Content, run: Content) -> Goal:
    seconds, step = run["collecting_seconds"], plain["steps"]["step_seconds"]
    figure = f"{seconds / step:.2%}: {seconds * 1e6:.1f} microseconds of {step * 1e3:.2f} ms"
    return Goal("collecting the report's measures costs at most 2 % of a plain step", figure, seconds <= 0.02 * step)


def _best_on_host(contenders: Mapping[str, Content]) -> str:
    """The best one whose drafters run no forward of their own, since that is not host time."""
    names = [name for name in contenders if "budget" in name and "model" not in name]
    return max(names, key=lambda name: float(contenders[name]["over_plain"]["median"]))


def _at_worst(over: Content) -> float:
    """The figure that decides: neither many easy prompts nor a few long ones carry a line alone."""
    return min(over["median"], over["together"])


def _medians(over: Content) -> str:
    return f"median {over['median']:.2f}, all together {over['together']:.2f}"


# bench busy

ALONE_TIMES = {1: 2.2, 2: 3.0}  # busy processes -> the most that decoding may take, in times the time alone


def busy_goals(content: Content) -> list[Goal]:
    """Two lines for each number of busy processes, on plain decoding."""
    cells = {cell["busy_processes"]: cell for cell in content["cells"] if cell["contender"] == PLAIN}
    wanted = [(cells[load], load, limit) for load, limit in ALONE_TIMES.items() if load in cells]
    return [line for cell, load, limit in wanted for line in _beside(cell, load, limit)]


def _beside(cell: Content, load: int, limit: float) -> list[Goal]:
    alone, over = cell["times_alone"], cell["over_transformers"]
    beside = f"beside {load} busy process{'es' if load > 1 else ''}"
    return [
        Goal(f"{beside} at most {limit} x the time alone", f"{Ratio(**alone)} x", alone["value"] <= limit),
        Goal(f"{beside} no slower than transformers", f"{Ratio(**over)} x as fast", over["value"] >= 1.0),
    ]


# bench load

FIRST_TIME, FROM_THEN_ON = 2.5, 1.5  # times transformers' from_pretrained
SECONDS = {FIRST: 5.0, LATER: 3.5}  # from the start of a process to the first token, of a model of such a size:
ABOUT_1B = (0.9e9, 1.3e9)  # parameters


def load_goals(content: Content) -> list[Goal]:
    """Beside transformers for any model, and in seconds for one of a billion parameters in bf16."""
    lines = []
    for name, limit in ((FIRST, FIRST_TIME), (LATER, FROM_THEN_ON)):
        found = Ratio(**content["beside_transformers"][name])
        lines.append(Goal(f"{name}: at most {limit} x transformers' time", f"{found} x", found.value <= limit))
    if content["dtype"] == "bfloat16" and ABOUT_1B[0] <= content["num_parameters"] <= ABOUT_1B[1]:
        lines += [_first_token(name, content["seconds"][name], limit) for name, limit in SECONDS.items()]
    return lines


def _first_token(name: str, seconds: Sequence[float], limit: float) -> Goal:
    figure = f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
    return Goal(f"{name}: a first token within {limit} s", figure, median(seconds) <= limit)


# bench doctor


def doctor_goals(content: Content) -> list[Goal]:
    """The two lines: intervals hold, and are not too wide."""
    figures = content["figures"]
    speedups = [figure for figure in figures if figure["name"] == "speed-up"]
    num_held, held = (sum(bool(figure["holds"]) for figure in some) for some in (figures, speedups))
    share = num_held / len(figures)
    width = median(_half_width(figure["predicted"]) for figure in speedups)
    coverage = f"{share:.0%}, {num_held} of {len(figures)} figures; of speed-ups {held} of {len(speedups)}"
    return [
        Goal("the doctor's intervals hold at least 90 % of the time", coverage, share >= 0.9),
        Goal("their median width for speed-ups is at most ± 20 %", f"± {width:.0%}", width <= 0.2),
    ]


def _half_width(predicted: Content) -> float:
    value = float(predicted["value"])
    return (predicted["high"] - predicted["low"]) / 2 / value if value else 0.0


GOALS: dict[str, Callable[[Content], list[Goal]]] = {
    "step": step_goals,
    "quantised-step": quantised_step_goals,
    "decode": decode_goals,
    "pacer": pacer_goals,
    "row": row_goals,
    "cold": cold_goals,
    "busy": busy_goals,
    "load": load_goals,
    "doctor": doctor_goals,
    "serve-sweep": serve_goals,
}


def goals_of(path: Path) -> list[Goal]:
    """The lines that the results in a file are to reach.

    Raises:
        ValueError: a file that cannot be read, or is no result of `paceline bench`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return GOALS[content["kind"]](content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} ({error!r}); allowed: what paceline bench {', '.join(GOALS)} wrote") from error


def main(paths: Sequence[str]) -> int:
    """The command."""
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        goals = [goal for path in paths for goal in goals_of(Path(path))]
    except ValueError as error:
        print(f"goals: {error}", file=sys.stderr)
        return 2
    print_goals(goals)
    if not goals:
        print("goals: none belongs to these results", file=sys.stderr)
    return 0 if all(goal.is_reached for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
