"""Faults of the noise, of verification and of the parameters inside drafts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from faults import checks
from faults.registry import Patch, children_of, fault, harmless
from paceline.engine import engine
from paceline.engine.request import Request
from paceline.engine.verify import Verdict, verify
from paceline.params import SamplingParams
from paceline.sampling.noise import Noise
from paceline.sampling.sampler import Sampler


def noise_at(patch: Patch, rule: Callable[[Noise, int], np.ndarray]) -> None:
    """`Noise.at` by another rule, of the noise and the position."""
    patch.setattr(Noise, "at", rule)


_at = Noise.at


@fault("noise used again at the next place", checks.outputs_follow_the_exact_law)
def _(patch: Patch) -> None:
    noise_at(patch, lambda noise, position: _at(noise, position - position % 2))


@fault(
    "noise started again in every step", checks.tokens_are_those_of_plain_decoding, checks.outputs_follow_the_exact_law
)
def _(patch: Patch) -> None:
    def restarting(tree, logits, law):
        law.noise.first = len(law._tokens)
        return verify(tree, logits, law)

    def at(noise: Noise, position: int) -> np.ndarray:
        noise.forget(position)
        return _at(noise, position - getattr(noise, "first", 0))

    patch.setattr(engine, "verify", restarting)
    noise_at(patch, at)


@fault("noise drawn afresh whenever it is asked for", checks.tokens_are_those_of_plain_decoding)
def _(patch: Patch) -> None:
    rng = np.random.default_rng(0)
    noise_at(patch, lambda noise, position: rng.gumbel(size=noise._vocab_size))


@fault("noise in single precision", checks.noise_is_finite_and_has_no_ties)
def _(patch: Patch) -> None:
    def at(noise: Noise, position: int) -> np.ndarray:
        uniforms = np.exp(-np.exp(-_at(noise, position))).astype(np.float32)
        return -np.log(-np.log(uniforms))

    noise_at(patch, at)


def noise_key(patch: Patch, which: int) -> None:
    """The noise with one half of its key left out."""

    def at(noise: Noise, position: int) -> np.ndarray:
        noise._start["state"]["key"][which] = 0
        return _at(noise, position)

    noise_at(patch, at)


@fault("noise that ignores the seed", checks.outputs_follow_the_exact_law, checks.samples_and_seeds_differ)
def _(patch: Patch) -> None:
    noise_key(patch, 0)


@fault("noise that ignores the sample", checks.samples_and_seeds_differ)
def _(patch: Patch) -> None:
    noise_key(patch, 1)


@fault("noise keyed by the output index", checks.a_continuation_says_what_the_whole_says)
def _(patch: Patch) -> None:
    init = Sampler.__init__

    def counting_from_the_output(law, params, context, prompt, *rest) -> None:
        init(law, params, context, prompt, *rest)
        noise, first = law.noise, len(prompt)
        noise.at = lambda position: _at(noise, position - first)

    patch.setattr(Sampler, "__init__", counting_from_the_output)


def flawed_walk(patch: Patch, *, row=None, choose=None, child=None) -> None:
    """`verify` with another row of logits, another drawn, or another child at a node."""

    def right_child(tree, node, token):
        found = [i for i in children_of(tree, node) if tree.tokens[i] == token]
        return found[0] if found else None

    def flawed(tree, logits, law) -> Verdict:
        path, sampled, node = [], [], -1
        while node is not None:
            scored = logits[(row(tree, node) if row else node) + 1]
            drawn = choose(law, scored, tree, node) if choose else law.sample(scored)
            law.advance(drawn.token)
            sampled.append(drawn)
            node = (child or right_child)(tree, node, drawn.token)
            path += [] if node is None else [node]
        return Verdict(tuple(path), tuple(sampled))

    patch.setattr(engine, "verify", flawed)


@fault("a row of logits off by one", checks.tokens_are_those_of_plain_decoding)
def _(patch: Patch) -> None:
    flawed_walk(patch, row=lambda tree, node: max(node - 1, -1))


@fault("the bonus token from the row before", checks.tokens_are_those_of_plain_decoding)
def _(patch: Patch) -> None:
    flawed_walk(patch, row=lambda tree, node: node if node < 0 or children_of(tree, node) else tree.parents[node])


@fault(
    "the correction token from elsewhere",
    checks.tokens_are_those_of_plain_decoding,
    checks.outputs_follow_the_exact_law,
)
def _(patch: Patch) -> None:
    def sample(law, scored, tree, node):
        """Never a drafted token, as if the target's draw had been rejected: a residual of the wrong kind."""
        drawn = law.sample(scored)
        drafted = [tree.tokens[i] for i in children_of(tree, node)]
        if not drafted or drawn.token in drafted:
            return drawn
        others = scored.copy()
        others[drawn.token] = -np.inf
        return law.sample(others)

    flawed_walk(patch, choose=sample)


@fault(
    "a drafted token taken because it is likely enough",
    checks.tokens_are_those_of_plain_decoding,
    checks.outputs_follow_the_exact_law,
)
def _(patch: Patch) -> None:
    def sample(law, scored, tree, node):
        likely = [i for i in children_of(tree, node) if scored[tree.tokens[i]] > scored.max() - 1]
        if not likely:
            return law.sample(scored)
        one_hot = np.full_like(scored, -np.inf)
        one_hot[tree.tokens[likely[0]]] = 0
        return law.sample(one_hot)

    flawed_walk(patch, choose=sample)


@fault(
    "a child accepted that does not carry the token",
    checks.tokens_are_those_of_plain_decoding,
    checks.the_targets_cache_holds_what_was_committed,
)
def _(patch: Patch) -> None:
    flawed_walk(patch, child=lambda tree, node, token: next(iter(children_of(tree, node)), None))


@fault(
    "penalties frozen while the draft is read",
    checks.tokens_are_those_of_plain_decoding,
    checks.scores_inside_drafts_see_the_exact_history,
)
def _(patch: Patch) -> None:
    penalise = Sampler._penalise

    def freezing(tree, logits, law):
        law.frozen = (law._counts.copy(), law._seen.copy())
        return verify(tree, logits, law)

    def frozen(law, scores) -> None:
        now = law._counts, law._seen
        law._counts, law._seen = getattr(law, "frozen", now)
        penalise(law, scores)
        law._counts, law._seen = now

    patch.setattr(engine, "verify", freezing)
    patch.setattr(Sampler, "_penalise", frozen)


@fault("parameters left out inside drafts", checks.every_parameter_acts_inside_drafts)
def _(patch: Patch) -> None:
    def sample(law, scored, tree, node):
        if node < 0:
            return law.sample(scored)
        with patch.context() as inner:
            inner.setattr(law, "params", SamplingParams(temperature=law.params.temperature))
            return law.sample(scored)

    flawed_walk(patch, choose=sample)


@fault(
    "sampling turned to the likeliest token",
    checks.outputs_follow_the_exact_law,
    checks.samples_and_seeds_differ,
)
def _(patch: Patch) -> None:
    noise_at(patch, lambda noise, position: np.zeros(noise._vocab_size))


@fault(
    "the grammar's mask frozen while the draft is read",
    checks.tokens_are_those_of_plain_decoding,
    checks.outputs_follow_their_grammar,
)
def _(patch: Patch) -> None:
    forbid = Sampler._forbid

    def freezing(tree, logits, law):
        law.frozen = law.grammar and law.grammar.copy()
        return verify(tree, logits, law)

    def frozen(law, scores) -> None:
        now = law.grammar
        law.grammar = getattr(law, "frozen", now)
        forbid(law, scores)
        law.grammar = now

    patch.setattr(engine, "verify", freezing)
    patch.setattr(Sampler, "_forbid", frozen)


@fault(
    "the grammar told of a step's tokens when the step is over",
    checks.tokens_are_those_of_plain_decoding,
    checks.outputs_follow_their_grammar,
)
def _(patch: Patch) -> None:
    def late(tree, logits, law):
        told: list[int] = []
        law._follow = lambda grammar, token: told.append(token)
        walked = verify(tree, logits, law)
        del law._follow
        for token in told:
            if law.grammar is not None:
                law._follow(law.grammar, token)
        return walked

    patch.setattr(engine, "verify", late)


@fault("a step cut at its first token where its grammar ends in it", checks.outputs_follow_their_grammar)
def _(patch: Patch) -> None:
    patch.setattr(Request, "_ends_its_grammar", lambda request: request.sampler.end is not None)


@harmless("noise by its own rule")
def _(patch: Patch) -> None:
    noise_at(patch, _at)


@harmless("a walk with nothing flawed")
def _(patch: Patch) -> None:
    flawed_walk(patch)
