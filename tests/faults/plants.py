"""Planted faults: each breaks one thing in the engine, and names the checks that must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from paceline import engine
from paceline.engine import Engine
from paceline.law import Noise, TargetLaw
from paceline.pacer import FixedPacer
from paceline.request import Request
from paceline.stats import RequestStats
from paceline.testing import ScriptedTarget
from paceline.tree import merge
from paceline.types import StepOutcome
from paceline.verify import Walk, walk

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """How a fault is planted, and the checks that must fail then."""

    plant: Callable[[Patch], None]
    caught_by: tuple[str, ...]


FAULTS: dict[str, Fault] = {}
EQUALITY = "tokens_are_those_of_plain_decoding"
LAW = "outputs_follow_the_exact_law"
CACHE = "the_targets_cache_holds_what_was_committed"
COUNTERS = "counters_agree_with_each_other"
FAILING = "a_failing_drafter_changes_nothing"


def fault(name: str, *caught_by: str):
    """Enters a fault."""

    def enter(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        FAULTS[name] = Fault(plant, caught_by)
        return plant

    return enter


# Noise.


def noise_at(patch: Patch, rule: Callable[[Noise, int], np.ndarray]) -> None:
    """`Noise.at` by another rule, of the noise and the position."""
    patch.setattr(Noise, "at", rule)


_at = Noise.at


@fault("noise used again at the next place", LAW)
def _(patch: Patch) -> None:
    noise_at(patch, lambda noise, position: _at(noise, position - position % 2))


@fault("noise started again in every step", EQUALITY, LAW)
def _(patch: Patch) -> None:
    def restarting(tree, logits, law):
        law.noise.first = len(law._tokens)
        return walk(tree, logits, law)

    def at(noise: Noise, position: int) -> np.ndarray:
        noise.forget(position)
        return _at(noise, position - getattr(noise, "first", 0))

    patch.setattr(engine, "walk", restarting)
    noise_at(patch, at)


@fault("noise drawn afresh whenever it is asked for", EQUALITY)
def _(patch: Patch) -> None:
    rng = np.random.default_rng(0)
    noise_at(patch, lambda noise, position: rng.gumbel(size=noise._vocab_size))


@fault("noise in single precision", "noise_is_finite_and_has_no_ties")
def _(patch: Patch) -> None:
    def at(noise: Noise, position: int) -> np.ndarray:
        uniforms = np.exp(-np.exp(-_at(noise, position))).astype(np.float32)
        return -np.log(-np.log(uniforms))

    noise_at(patch, at)


def noise_key(patch: Patch, which: int) -> None:
    """The noise with one half of its key left out."""

    def at(noise: Noise, position: int) -> np.ndarray:
        noise._key[which] = 0
        return _at(noise, position)

    noise_at(patch, at)


@fault("noise that ignores the seed", LAW, "samples_and_seeds_differ")
def _(patch: Patch) -> None:
    noise_key(patch, 0)


@fault("noise that ignores the sample", "samples_and_seeds_differ")
def _(patch: Patch) -> None:
    noise_key(patch, 1)


@fault("noise keyed by the output index", "a_continuation_says_what_the_whole_says")
def _(patch: Patch) -> None:
    init = TargetLaw.__init__

    def counting_from_the_output(law, params, context, prompt, *rest) -> None:
        init(law, params, context, prompt, *rest)
        noise, first = law.noise, len(prompt)
        noise.at = lambda position: _at(noise, position - first)

    patch.setattr(TargetLaw, "__init__", counting_from_the_output)


# Verification.


def flawed_walk(patch: Patch, *, row=None, choose=None, child=None) -> None:
    """`walk` with another row of logits, another choice, or another child at a node."""

    def right_child(tree, node, token):
        found = [i for i in children_of(tree, node) if tree.tokens[i] == token]
        return found[0] if found else None

    def flawed(tree, logits, law) -> Walk:
        path, choices, node = [], [], -1
        while node is not None:
            scored = logits[(row(tree, node) if row else node) + 1]
            choice = choose(law, scored, tree, node) if choose else law.choose(scored)
            law.advance(choice.token)
            choices.append(choice)
            node = (child or right_child)(tree, node, choice.token)
            path += [] if node is None else [node]
        return Walk(tuple(path), tuple(choices))

    patch.setattr(engine, "walk", flawed)


def children_of(tree, node: int) -> list[int]:
    return [i for i, parent in enumerate(tree.parents) if parent == node]


@fault("a row of logits off by one", EQUALITY)
def _(patch: Patch) -> None:
    flawed_walk(patch, row=lambda tree, node: max(node - 1, -1))


@fault("the bonus token from the row before", EQUALITY)
def _(patch: Patch) -> None:
    flawed_walk(
        patch, row=lambda tree, node: node if node < 0 or children_of(tree, node) else tree.parents[node]
    )


@fault("the correction token from elsewhere", EQUALITY, LAW)
def _(patch: Patch) -> None:
    def choose(law, scored, tree, node):
        """Never a drafted token, as if the target's draw had been rejected: a residual of the wrong kind."""
        choice = law.choose(scored)
        drafted = [tree.tokens[i] for i in children_of(tree, node)]
        if not drafted or choice.token in drafted:
            return choice
        others = scored.copy()
        others[choice.token] = -np.inf
        return law.choose(others)

    flawed_walk(patch, choose=choose)


@fault("a drafted token taken because it is likely enough", EQUALITY, LAW)
def _(patch: Patch) -> None:
    def choose(law, scored, tree, node):
        likely = [i for i in children_of(tree, node) if scored[tree.tokens[i]] > scored.max() - 1]
        if not likely:
            return law.choose(scored)
        one_hot = np.full_like(scored, -np.inf)
        one_hot[tree.tokens[likely[0]]] = 0
        return law.choose(one_hot)

    flawed_walk(patch, choose=choose)


@fault("a child accepted that does not carry the token", EQUALITY, CACHE)
def _(patch: Patch) -> None:
    flawed_walk(patch, child=lambda tree, node, token: next(iter(children_of(tree, node)), None))


@fault("penalties frozen while the draft is read", EQUALITY, "scores_inside_drafts_see_the_exact_history")
def _(patch: Patch) -> None:
    penalise = TargetLaw._penalise

    def freezing(tree, logits, law):
        law.frozen = (law._counts.copy(), law._seen.copy())
        return walk(tree, logits, law)

    def frozen(law, scores) -> None:
        now = law._counts, law._seen
        law._counts, law._seen = getattr(law, "frozen", now)
        penalise(law, scores)
        law._counts, law._seen = now

    patch.setattr(engine, "walk", freezing)
    patch.setattr(TargetLaw, "_penalise", frozen)


# The target's cache.


def kept_path(patch: Patch, rule) -> None:
    """`Target.commit` told another path, by a rule of the tree and the path."""
    commit = ScriptedTarget.commit

    def flawed(target, request, path) -> None:
        tree = target._scored[request.id][1]
        commit(target, request, rule(tree, tuple(path)))

    patch.setattr(ScriptedTarget, "commit", flawed)


@fault("the last accepted row dropped from the cache", CACHE)
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: path[:-1])


@fault("a rejected row left in the cache", CACHE)
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: (*path, *children_of(tree, path[-1] if path else -1)[:1]))


@fault("the rows of a sibling kept in the cache", CACHE)
def _(patch: Patch) -> None:
    def rule(tree, path):
        siblings = children_of(tree, tree.parents[path[-1]]) if path else []
        return (*path[:-1], siblings[-1]) if siblings else path

    kept_path(patch, rule)


@fault("as many rows kept as were accepted, but the first ones", CACHE)
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: tuple(range(len(path))))


@fault("the pending token prefilled", CACHE)
def _(patch: Patch) -> None:
    patch.setattr(
        ScriptedTarget,
        "prefill",
        lambda target, request: target._cached.update({request.id: request.tokens[:]}),
    )


@fault("the logits of a neighbour in the batch", EQUALITY, "a_neighbour_in_the_batch_changes_nothing")
def _(patch: Patch) -> None:
    score = ScriptedTarget.score

    def shifted(target, work):
        rows = score(target, work)
        return [np.resize(rows[i - 1], own.shape) for i, own in enumerate(rows)]

    patch.setattr(ScriptedTarget, "score", shifted)


# Budgets, ends, counters, drafters.


@fault("a budget one too large", "a_forward_has_no_more_rows_than_it_may")
def _(patch: Patch) -> None:
    patch.setattr(engine, "merge", lambda trees, budget: merge(trees, budget + 1))


@fault("a draft for the last token", "no_draft_is_bought_for_the_last_token")
def _(patch: Patch) -> None:
    patch.setattr(
        FixedPacer, "budgets", lambda pacer, requests, most: [min(pacer.budget, most)] * len(requests)
    )


@fault("an end looked for in the last token of a step only", EQUALITY, "nothing_follows_the_end")
def _(patch: Patch) -> None:
    def commit(request, choices, sources):
        ended = [request._append(choice, source) for choice, source in zip(choices, sources, strict=True)]
        emitted = tuple(token for token, _ in ended)
        request.outbox.extend(emitted)
        request.finish_reason = ended[-1][1]
        return emitted

    patch.setattr(Request, "commit", commit)


@fault("a stop string looked for in the target's own tokens only", "text_ends_before_a_stop_string")
def _(patch: Patch) -> None:
    append = Request._append

    def flawed(request, choice, source):
        push = request._text.push
        request._text.push = lambda token, check_stop: push(token, check_stop and source == "target")
        try:
            return append(request, choice, source)
        finally:
            request._text.push = push

    patch.setattr(Request, "_append", flawed)


@fault("one token beyond the limit", "nothing_follows_the_end")
def _(patch: Patch) -> None:
    patch.setattr(
        Request,
        "num_remaining",
        property(lambda request: request.params.max_tokens + 1 - request.num_output_tokens),
    )


@fault("the bonus token counted as an accepted draft", COUNTERS)
def _(patch: Patch) -> None:
    patch.setattr(StepOutcome, "num_accepted_drafts", property(lambda outcome: len(outcome.tokens)))
    observe = RequestStats.observe
    patch.setattr(
        RequestStats, "observe", lambda stats, drafted, ok, n: observe(stats, drafted, (ok + drafted)[:n], n)
    )


@fault("drafts counted as accepted that a stop cut off", COUNTERS)
def _(patch: Patch) -> None:
    patch.setattr(StepOutcome, "num_accepted_drafts", property(lambda outcome: len(outcome.path)))


@fault("steps that accept nothing left out of the histogram", COUNTERS)
def _(patch: Patch) -> None:
    observe = RequestStats.observe

    def flawed(stats, drafted, accepted, num_emitted) -> None:
        observe(stats, drafted, accepted, num_emitted)
        del stats.acceptance_histogram[0]

    patch.setattr(RequestStats, "observe", flawed)


@fault("emitted tokens counted before a stop cuts them", COUNTERS)
def _(patch: Patch) -> None:
    observe = RequestStats.observe
    patch.setattr(
        RequestStats, "observe", lambda stats, drafted, ok, n: observe(stats, drafted, ok, len(ok) + 1)
    )


@fault("an error of a drafter let through", FAILING)
def _(patch: Patch) -> None:
    patch.setattr(
        Engine, "_propose", lambda engine, drafter, requests, budgets: drafter.propose(requests, budgets)
    )


@fault("a drafter that failed asked again", FAILING)
def _(patch: Patch) -> None:
    patch.setattr(Engine, "_dismiss", lambda engine, drafter, request, error: None)


@fault("a request ended because its drafter failed", FAILING)
def _(patch: Patch) -> None:
    dismiss = Engine._dismiss

    def flawed(engine, drafter, request, error) -> None:
        dismiss(engine, drafter, request, error)
        engine.abort(request)

    patch.setattr(Engine, "_dismiss", flawed)
