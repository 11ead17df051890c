"""A certificate of two servers from a plan: ask, compare, control, write down."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from paceline._version import __version__
from paceline.certify.servers.asking import Subject
from paceline.certify.servers.certificate import ServersCertificate
from paceline.certify.servers.greedy import Greedy, Steadiness, greedy_as_dict
from paceline.certify.servers.plan import ServersPlan
from paceline.certify.servers.trials import Trials, greedy_controls, judge_samples
from paceline.client import Client
from paceline.errors import ServerError

_SILENCE = 120.0  # seconds that a server may take for an answer
_SHOWN_FAILURES = 3
_ROLES = ("baseline", "candidate")
Progress = Callable[[str, int], None]  # what is being asked, and how many requests were answered


def certify_servers(
    plan: ServersPlan, api_keys: Sequence[str | None], on_progress: Progress = lambda what, done: None
) -> ServersCertificate:
    """Compare two servers; `api_keys` are the baseline's and the candidate's.

    Raises:
        ServerError: one of them does not answer the first request.
    """
    started, done = time.perf_counter(), 0
    stage = ""

    def advance() -> None:
        nonlocal done
        done += 1
        on_progress(stage, done)

    with ExitStack() as stack:
        urls = (plan.baseline, plan.candidate)
        clients = [
            stack.enter_context(Client(url, key, silence=_SILENCE)) for url, key in zip(urls, api_keys, strict=True)
        ]
        named = zip(_ROLES, clients, plan.models, strict=True)
        subjects = [_subject(role, client, model, plan) for role, client, model in named]
        trials = Trials(plan, subjects[0], subjects[1], advance)
        stage = "greedy texts"
        greedy = trials.greedy()
        partings = trials.partings(greedy)
        stage = "the same seed twice"
        seeds = trials.seeds()
        stage = "samples"
        samples = trials.samples()
    sampled, controls = judge_samples(samples, plan.seed)
    found = greedy_as_dict(greedy, partings)
    return ServersCertificate(
        plan,
        {role: _server(subject) for role, subject in zip(_ROLES, subjects, strict=True)},
        found,
        sampled | {"seeds": {role: vars(own) for role, own in zip(_ROLES, seeds, strict=True)}},
        [*greedy_controls(greedy), *controls],
        _notes(found, greedy, sampled, seeds, subjects),
        _provenance(),
        round(time.perf_counter() - started, 1),
    )


def _subject(role: str, client: Client, model: str | None, plan: ServersPlan) -> Subject:
    """A server that has answered once."""
    try:
        if model is None:
            models = client.models()
            if not models:
                raise ServerError("it lists no model; --model names one")
            model = models[0]
        subject = Subject(client, model, plan.endpoint, plan.fields)
        subject.probe(plan.prompts[0])
    except ServerError as error:
        raise ServerError(f"the {role} at {client.url} does not answer: {error}", status=error.status) from error
    return subject


def _server(subject: Subject) -> dict[str, Any]:
    return {
        "url": subject.client.url,
        "model": subject.model,
        "fingerprints": sorted(subject.fingerprints),
        "requests": subject.num_requests,
        "repeated": subject.num_repeated,
        "failures": dict(subject.failures.most_common()),
    }


def _notes(
    found: dict[str, Any],
    greedy: Sequence[Greedy],
    sampled: dict[str, Any],
    seeds: Sequence[Steadiness],
    subjects: Sequence[Subject],
) -> list[str]:
    """What a reader should know of the servers."""
    notes = []
    for role, seed, subject in zip(_ROLES, seeds, subjects, strict=True):
        steady = found["steadiness"][role]
        if steady["same"] < steady["asked"]:
            notes.append(
                f"The {role} does not honour temperature 0, or is not deterministic: asked twice, it repeats "
                f"{steady['same']} of {steady['asked']} greedy texts."
            )
        if not seed.is_steady:
            notes.append(f"The {role} does not honour seed: it repeats {seed.same} of {seed.asked} samples.")
        if subject.failures:
            worst = "; ".join(f"{n} times {what}" for what, n in subject.failures.most_common(_SHOWN_FAILURES))
            total = subject.failures.total()
            notes.append(f"The {role} left {total:,} of {subject.num_requests:,} requests without an answer: {worst}.")
        if subject.num_repeated:
            notes.append(f"The {role} was asked again {subject.num_repeated:,} times after a passing error.")
        if len(subject.fingerprints) > 1:
            notes.append(f"The {role} gives several system fingerprints: {', '.join(sorted(subject.fingerprints))}.")
    if sampled["test"] is not None and max(sampled["test"]["kinds"]) == 1:
        notes.append("All samples of a prompt are alike: the models are sure, or temperature 1 is not honoured.")
    if found["partings"] and all(p["baseline_margin"] is None for p in found["partings"]):
        notes.append("The baseline gives no log probabilities that fit its text, so that no margin is shown.")
    if found["other_ends"]:
        notes.append(f"{found['other_ends']} of the equal greedy texts have another finish reason.")
    if all(one.baseline[0] is None or not one.baseline[0].text for one in greedy):
        notes.append("The baseline's greedy texts are all empty.")
    return notes


def _provenance() -> dict[str, Any]:
    """Where and when it was run, and how, without keys."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    for index, word in enumerate(command):
        if word.startswith("--api-key="):
            command[index] = "--api-key=…"
        elif index and command[index - 1] == "--api-key":
            command[index] = "…"
    return {
        "command": shlex.join(command),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"paceline": __version__, "python": platform.python_version()},
    }
