"""Our goals for the pacer: what `paceline bench pacer`, alone, with `--in-a-row` and with `--cold`, is to reach."""

from __future__ import annotations

from collections.abc import Mapping

from goal import Content, Goal

from paceline.bench.timing import Ratio

BUNDLED, INFLATED = "bundled", "inflated"  # models of `paceline bench pacer`
NOISE, COPY = "noise", "copy"
FAST_ON = (INFLATED, "bfloat16")  # the target of the lines on speed, and its dtype
OF_BEST = 0.97  # of the best fixed contender, in every task
OF_PLAIN = 0.98  # on text that cannot be drafted, and of a model so fast that hardly anything pays
OF_PLAIN_AT_WORST = 0.90  # a single request
MIX, FAST_COPY = 1.9, 1.3  # times plain
HOST_SECONDS = 4e-4
FIRST_REQUEST = {"cold": 0.85, "kept": 0.95}  # of the best fixed contender


def pacer_goals(content: Content) -> list[Goal]:
    """The lines of a target, as far as their tasks were measured."""
    summary = content["summary"]
    tasks = summary["tasks"]
    lines = [_best_in_every_task(tasks), _best_on_the_mix(summary)]
    if NOISE in tasks:
        lines.append(_noise(tasks[NOISE]))
    if (content["model"], content["dtype"]) == FAST_ON:
        lines.append(_speed(summary))
    if content["model"] == BUNDLED:
        lines.append(_hardly_slower(summary["mix"]))
        lines += [_copies(tasks[COPY])] if COPY in tasks else []
    if summary["host"] is not None:
        lines.append(_host_seconds(summary["host"]))
    return [*lines, _guard(summary["guard"]), _bytes(summary)]


def _interval(found: Content) -> str:
    return str(Ratio(found["value"], found["low"], found["high"]))


def _best_in_every_task(tasks: Mapping[str, Content]) -> Goal:
    shares = {name: task["pacer"]["value"] / max(task["fixed"].values()) for name, task in tasks.items()}
    worst = min(shares, key=lambda name: shares[name])
    fixed = tasks[worst]["fixed"]
    best = max(fixed, key=lambda name: float(fixed[name]))
    pacer = _interval(tasks[worst]["pacer"])
    figure = f"{shares[worst]:.2f} at worst, in {worst}: {pacer} against {fixed[best]:.2f} with {best}"
    text = f"the pacer is at least {OF_BEST} of the best fixed contender in every task"
    return Goal(text, figure, shares[worst] >= OF_BEST)


def _best_on_the_mix(summary: Content) -> Goal:
    mix, fixed = summary["mix"], summary["mix_fixed"]
    best = max(fixed, key=lambda name: float(fixed[name]))
    figure = f"{_interval(mix)} against {fixed[best]:.2f} with {best}"
    text = "the pacer is better than every single fixed contender over the mix"
    return Goal(text, figure, mix["value"] > fixed[best])


def _noise(task: Content) -> Goal:
    figure = f"{_interval(task['pacer'])}; plain against itself {task['noise']:.2f}"
    text = f"the pacer is at least {OF_PLAIN} of plain on text that cannot be drafted"
    return Goal(text, figure, task["pacer"]["value"] >= OF_PLAIN)


def _speed(summary: Content) -> Goal:
    figure = f"{_interval(summary['mix'])}; geometric mean of the tasks {summary['mix_mean']:.2f}"
    return Goal(f"the pacer is at least {MIX} x plain on the mix", figure, summary["mix"]["value"] >= MIX)


def _hardly_slower(mix: Content) -> Goal:
    return Goal(f"the pacer is at least {OF_PLAIN} of plain on the mix", _interval(mix), mix["value"] >= OF_PLAIN)


def _copies(task: Content) -> Goal:
    figure = f"{_interval(task['pacer'])}; plain against itself {task['noise']:.2f}"
    return Goal(f"the pacer is at least {FAST_COPY} x plain in copies", figure, task["pacer"]["value"] >= FAST_COPY)


def _host_seconds(host: Content) -> Goal:
    figure = f"{host['median'] * 1e3:.2f} ms, nine in ten {host['upper'] * 1e3:.2f}, {host['num_steps']} steps"
    text = "drafting and pacing beside the draft model take at most 0.4 ms in steps of 12 to 16 rows"
    return Goal(text, figure, host["median"] <= HOST_SECONDS)


def _guard(guard: Content) -> Goal:
    figure = (
        f"{guard['num_over_bound']} of {guard['num_runs']} runs over it; {guard['num_over']} over (1 + delta) plain + "
        f"4 t1 alone, by {guard['most_over']:.1%} at most; error of costs {guard['median_cost_error']:.1%} of a run, "
        f"at most {guard['max_cost_error']:.1%}"
    )
    text = "no run takes longer than the guard's bound with its term of cost errors"
    return Goal(text, figure, guard["num_over_bound"] == 0)


def _bytes(summary: Content) -> Goal:
    same = summary["num_outputs"] - summary["num_mismatches"]
    figure = f"{same} of {summary['num_outputs']} outputs"
    text = "every output has the tokens and log-probabilities of plain decoding"
    return Goal(text, figure, summary["num_mismatches"] == 0)


def row_goals(content: Content) -> list[Goal]:
    """Requests that cannot be drafted, one after the other: all together, and the worst of them."""
    summary = content["summary"]
    whole, count = summary["whole"], len(summary["requests"])
    again = summary["again_whole"]["value"]
    figure = f"{_interval(whole)}, first round {summary['first_round']:.2f}; plain against itself {again:.2f}"
    worst = f"{summary['worst']:.2f} at worst; plain against itself {summary['again_worst']:.2f}"
    text = f"{count} requests in a row that cannot be drafted are at least {OF_PLAIN} of plain"
    alone = f"none of {count} requests in a row that cannot be drafted is below {OF_PLAIN_AT_WORST:.2f} of plain"
    lines = [
        Goal(text, figure, whole["value"] >= OF_PLAIN),
        Goal(alone, worst, summary["worst"] >= OF_PLAIN_AT_WORST),
    ]
    return [*lines, _guard(summary["guard"])]


def cold_goals(content: Content) -> list[Goal]:
    """First requests of a process, the worst task of each kind; of the pair that the goal names alone."""
    subject = content["subject"]
    if (subject["model"], subject["draft_model"], subject["dtype"]) != (INFLATED, INFLATED, "bfloat16"):
        return []
    return [_first_request(content["tasks"], kind, least) for kind, least in FIRST_REQUEST.items()]


def _first_request(tasks: Mapping[str, Content], kind: str, least: float) -> Goal:
    shares = {name: float(task[kind]["share"]["median"]) for name, task in tasks.items()}
    worst = min(shares, key=lambda name: shares[name])
    missed = ", ".join(name for name, share in shares.items() if share < least) or "no task"
    text = f"a first request, {kind}, is at least {least} of the best fixed contender on each text"
    return Goal(text, f"{shares[worst]:.2f} at worst, in {worst}; below it: {missed}", shares[worst] >= least)
