"""Faults of the target's cache, of budgets, ends and counters, and of dealing with drafters that fail."""

from __future__ import annotations

import numpy as np

from faults import checks
from faults.registry import Patch, children_of, fault, harmless
from paceline.engine.drafting import Drafting
from paceline.engine.request import Hints, Request, StepOutcome
from paceline.engine.stats import Stats
from paceline.engine.tree import MAX_DEPTH, merge
from paceline.pacing import fixed
from paceline.pacing.plan import max_depth
from paceline.testing import ScriptedTarget

unread = ScriptedTarget.num_unread


def kept_path(patch: Patch, rule) -> None:
    """`Target.commit` told another path, by a rule of the tree and the path."""
    commit = ScriptedTarget.commit

    def flawed(target, request, path) -> None:
        tree = target._scored[request.id][1]
        commit(target, request, rule(tree, tuple(path)))

    patch.setattr(ScriptedTarget, "commit", flawed)


@fault("the last accepted row dropped from the cache", checks.the_targets_cache_holds_what_was_committed)
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: path[:-1])


@fault("a rejected row left in the cache", checks.the_targets_cache_holds_what_was_committed)
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: (*path, *children_of(tree, path[-1] if path else -1)[:1]))


@fault("the rows of a sibling kept in the cache", checks.the_targets_cache_holds_what_was_committed)
def _(patch: Patch) -> None:
    def rule(tree, path):
        siblings = children_of(tree, tree.parents[path[-1]]) if path else []
        return (*path[:-1], siblings[-1]) if siblings else path

    kept_path(patch, rule)


@fault("as many rows kept as were accepted, but the first ones", checks.the_targets_cache_holds_what_was_committed)
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: tuple(range(len(path))))


@fault("the pending token read with the prompt", checks.the_targets_cache_holds_what_was_committed)
def _(patch: Patch) -> None:
    read = ScriptedTarget.read

    def flawed(target, request, max_rows) -> int:
        count = read(target, request, max_rows)
        if target.num_unread(request) == 0:
            target._cached[request.id] = request.tokens[:]
        return count

    patch.setattr(ScriptedTarget, "read", flawed)
    patch.setattr(ScriptedTarget, "num_unread", lambda target, request: max(unread(target, request), 0))


@fault(
    "the logits of a neighbour in the batch",
    checks.tokens_are_those_of_plain_decoding,
    checks.a_neighbour_in_the_batch_changes_nothing,
)
def _(patch: Patch) -> None:
    score = ScriptedTarget.score

    def shifted(target, work):
        rows = score(target, work)
        return [np.resize(rows[i - 1], own.shape) for i, own in enumerate(rows)]

    patch.setattr(ScriptedTarget, "score", shifted)


@fault("a budget one too large", checks.a_forward_has_no_more_rows_than_it_may)
def _(patch: Patch) -> None:
    patch.setattr(fixed, "merge", lambda trees, budget, depth: merge(trees, budget + 1, depth))


@fault("a draft for the last token", checks.no_draft_is_bought_for_the_last_token)
def _(patch: Patch) -> None:
    patch.setattr(fixed, "max_depth", lambda request: MAX_DEPTH)
    patch.setattr(fixed, "merge", lambda trees, budget, depth: merge(trees, budget))


@fault("drafts as deep as the limit", checks.a_run_to_the_limit_cuts_nothing)
def _(patch: Patch) -> None:
    patch.setattr(fixed, "max_depth", lambda request: max_depth(request) + 1)


@fault(
    "an end looked for in the last token of a step only",
    checks.tokens_are_those_of_plain_decoding,
    checks.nothing_follows_the_end,
)
def _(patch: Patch) -> None:
    def commit(request, choices, sources):
        ended = [request._append(choice, source) for choice, source in zip(choices, sources, strict=True)]
        emitted = tuple(token for token, _ in ended)
        request.outbox.extend(emitted)
        request.finish_reason = ended[-1][1]
        return emitted

    patch.setattr(Request, "commit", commit)


@fault("a stop string looked for in the target's own tokens only", checks.text_ends_before_a_stop_string)
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


@fault("one token beyond the limit", checks.nothing_follows_the_end)
def _(patch: Patch) -> None:
    patch.setattr(
        Request,
        "num_remaining",
        property(lambda request: request.params.max_tokens + 1 - request.num_output_tokens),
    )


@fault("the bonus token counted as an accepted draft", checks.counters_agree_with_each_other)
def _(patch: Patch) -> None:
    patch.setattr(StepOutcome, "num_accepted_drafts", property(lambda outcome: len(outcome.tokens)))
    observe = Stats.observe
    patch.setattr(
        Stats,
        "observe",
        lambda stats, drafted, ok, n, tested: observe(stats, drafted, (ok + drafted)[:n], n, tested),
    )


@fault("drafts counted as accepted that a stop cut off", checks.counters_agree_with_each_other)
def _(patch: Patch) -> None:
    patch.setattr(StepOutcome, "num_accepted_drafts", property(lambda outcome: len(outcome.path)))


@fault("steps that accept nothing left out of the histogram", checks.counters_agree_with_each_other)
def _(patch: Patch) -> None:
    observe = Stats.observe

    def flawed(stats, *counts) -> None:
        observe(stats, *counts)
        stats.acceptance_histogram[0] = 0

    patch.setattr(Stats, "observe", flawed)


@fault("emitted tokens counted before a stop cuts them", checks.counters_agree_with_each_other)
def _(patch: Patch) -> None:
    observe = Stats.observe
    patch.setattr(
        Stats, "observe", lambda stats, drafted, ok, n, tested: observe(stats, drafted, ok, len(ok) + 1, tested)
    )


@fault("drafts behind a rejection counted as evaluated", checks.counters_agree_with_each_other)
def _(patch: Patch) -> None:
    patch.setattr(StepOutcome, "num_evaluated_drafts", property(lambda outcome: len(outcome.tree)))


@fault("a bonus token counted as a rejected draft", checks.counters_agree_with_each_other)
def _(patch: Patch) -> None:
    patch.setattr(StepOutcome, "num_evaluated_drafts", property(lambda outcome: len(outcome.tokens)))


@fault("an error of a drafter let through", checks.a_failing_drafter_changes_nothing)
def _(patch: Patch) -> None:
    patch.setattr(Drafting, "ask", lambda drafting, drafter, *work: drafter.propose(*work))


@fault("a drafter that failed asked again", checks.a_failing_drafter_changes_nothing)
def _(patch: Patch) -> None:
    patch.setattr(Drafting, "_dismiss", lambda drafting, drafter, request, error: None)


@fault("a request ended because its drafter failed", checks.a_failing_drafter_changes_nothing)
def _(patch: Patch) -> None:
    dismiss = Drafting._dismiss

    def flawed(drafting, drafter, request, error) -> None:
        dismiss(drafting, drafter, request, error)
        request.cancel()

    patch.setattr(Drafting, "_dismiss", flawed)


@fault("all tenants taken for one", checks.no_tenants_text_drafts_for_another)
def _(patch: Patch) -> None:
    init = Request.__init__

    def flawed(request, *args) -> None:
        init(request, *args)
        request.hints = Hints(prediction=request.hints.prediction)

    patch.setattr(Request, "__init__", flawed)


@harmless("the path that was accepted")
def _(patch: Patch) -> None:
    kept_path(patch, lambda tree, path: path)
