"""Right law: plain Paceline against the reference, token by token where it is greedy and by betting where it samples.

Three questions, none of which needs the others' answers:
- are the logits those of the fp32 model, up to the rounding of this dtype?
- is each greedy token the one that the fp32 model and transformers' processors choose, up to ties within rounding?
- are sampled tokens drawn with the probabilities that transformers' processors make of the very logits they came from?
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from paceline.certify.betting import FALSE_ALARM, Bettor, Chances
from paceline.certify.harness import Harness, Ids
from paceline.certify.plan import Case
from paceline.certify.reference import ReferenceLaw, ReferenceModel, covers
from paceline.pacing import FixedPacer
from paceline.sampling.noise import Noise
from paceline.testing.recorder import Trace, digest
from paceline.text.source import forbidden_ids, output_start
from paceline.text.tokenizer import eos_ids
from paceline.wealth import log_mean_exp, p_value

# Relative to the largest logit of a row: how far a logit may be off, and how near two must be to count as a tie.
# In blocks: an input of a product that rounding decides otherwise by its last bit is another int8.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "blocks": 1e-2}
_TOKENS = 2  # of a sampled continuation
_PLACES, _FORKS = 8, 50  # places of a long output, and what the law chooses there for so many further samples


@dataclass
class Audit:
    """Greedy decisions beside the reference's."""

    decisions: int = 0
    equal: int = 0
    ties: int = 0  # not the reference's token, but within the tolerance of it
    widest_tie: float = 0.0  # the largest gap among those, relative to the row's largest logit
    first_wrong: str = ""  # where a token is not the reference's, and no tie; empty if nowhere
    largest_error: float = 0.0  # of a logit, relative to the row's largest
    errors: list[float] = field(default_factory=list)  # each row's largest
    tolerance: float = 0.0

    @property
    def is_right(self) -> bool:
        """True if decisions were audited, logits are near enough, and no token is wrong."""
        return bool(self.decisions) and not self.first_wrong and self.median_error <= 2 * self.tolerance

    @property
    def median_error(self) -> float:
        """The median row's largest error of a logit: single rows may be rounded far off, most may not."""
        return float(np.median(self.errors)) if self.errors else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = {name: value for name, value in vars(self).items() if name != "errors"}
        return found | {"is_right": self.is_right, "median_error": self.median_error}


@dataclass
class Draws:
    """Sampled tokens of one kind of sampling beside their exact probabilities."""

    case: str
    tokens: int = 0
    engine_tokens: int = 0  # of these, drawn by the engine itself
    contexts: int = 0
    log_wealth: float = 0.0

    @property
    def p_value(self) -> float:
        """Anytime-valid."""
        return p_value(self.log_wealth)


@dataclass
class LawResult:
    """What comparing with the reference has shown."""

    audit: Audit = field(default_factory=Audit)
    draws: dict[str, Draws] = field(default_factory=dict)
    num_rounds: int = 0

    @property
    def log_wealth(self) -> float:
        """Of all bets together: the mean of the cases' wealth, which is a bet too."""
        return log_mean_exp(np.array([draws.log_wealth for draws in self.draws.values()] or [0.0]))

    @property
    def has_fair_draws(self) -> bool:
        """True unless the tokens' probabilities are refuted at the stated chance of a false alarm."""
        return any(draws.tokens for draws in self.draws.values()) and p_value(self.log_wealth) > FALSE_ALARM

    @property
    def is_right(self) -> bool:
        """True if the audit and the draws are."""
        return self.audit.is_right and self.has_fair_draws

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        draws = [asdict(d) | {"p_value": d.p_value} for d in self.draws.values()]
        return {
            "is_right": self.is_right,
            "audit": self.audit.as_dict(),
            "draws": draws,
            "has_fair_draws": self.has_fair_draws,
            "p_value": p_value(self.log_wealth),
            "false_alarm": FALSE_ALARM,
            "num_rounds": self.num_rounds,
        }


class LawCheck:
    """Compares a harness's plain decoding with a reference, round by round; a prompt a round."""

    def __init__(self, harness: Harness, cases: Sequence[Case], seed: int, dtype: str) -> None:
        self._harness, self._seed = harness, seed
        self._cases = [case for case in cases if covers(case)]
        target, tokenizer = harness.llm.target, harness.llm.tokenizer
        generation = getattr(target, "generation_config", None)
        self._eos = sorted(eos_ids(tokenizer, generation))
        self._reads = target.reads is not None
        self._begun = tuple(output_start(generation, tokenizer, None)) if self._reads else ()
        self._forbidden = forbidden_ids(generation) if self._reads else ()
        sampled = [case.name for case in self._cases if not case.is_greedy]
        self._bettors = {name: Bettor() for name in sampled}
        self.result = LawResult(Audit(tolerance=TOLERANCES[dtype]), {name: Draws(name) for name in sampled})

    def run(
        self, prompts: Sequence[Ids], reference: ReferenceModel | None, goes_on: Callable[[LawResult], bool]
    ) -> LawResult:
        """Run rounds for as long as `goes_on` says so; without a reference model, only the draws."""
        while goes_on(self.result):
            number = self.result.num_rounds
            prompt = prompts[number % len(prompts)]
            for case in self._cases:
                if not case.is_greedy:
                    self._draw(prompt, case, number)
                elif reference is not None:
                    self._audit(prompt, case, reference)
            self.result.num_rounds += 1
        return self.result

    def _law(self, prompt: Ids, case: Case) -> ReferenceLaw:
        sampling = {name: value for name, value in case.sampling.items() if name != "ignore_eos"}
        return ReferenceLaw(sampling, self._begun or prompt, self._eos, self._forbidden)

    def _traces(self, prompt: Ids, options: dict[str, Any]) -> list[Trace]:
        self._harness.pace(FixedPacer(0), keep_rows=True)
        self._harness.generate([list(prompt)], drafters="none", **options)
        return self._harness.recorder.traces

    def _audit(self, prompt: Ids, case: Case, reference: ReferenceModel) -> None:
        """Every token of a greedy output, each after the output so far, whatever the reference would have said."""
        [trace] = self._traces(prompt, self._harness.options(case, self._seed))
        tokens = [*(self._begun or prompt), *trace.tokens[:-1]]
        rows = reference.logits(tokens, len(trace.tokens), prompt if self._reads else ())
        law, audit = self._law(prompt, case), self.result.audit
        for index, (row, token) in enumerate(zip(rows, trace.tokens, strict=True)):
            scale = float(np.abs(row).max())
            error = float(np.abs(row - trace.rows[index]).max()) / scale
            scores = law.scores(trace.tokens[:index], row)
            gap = float(scores.max() - scores[token]) / scale
            audit.decisions += 1
            audit.errors.append(error)
            audit.largest_error = max(audit.largest_error, error)
            if gap == 0.0:
                audit.equal += 1
            elif gap <= audit.tolerance:
                audit.ties += 1
                audit.widest_tie = max(audit.widest_tie, gap)
            elif not audit.first_wrong:
                audit.first_wrong = (
                    f"{case.name}, token {index} after a prompt of {len(prompt)}: {token} was chosen, the reference "
                    f"chooses {int(scores.argmax())}, {gap:.2g} of the largest logit above it"
                )

    def _draw(self, prompt: Ids, case: Case, number: int) -> None:
        """Samples of a few tokens and one long output, drawn by the engine; and more tokens at places of the latter."""
        seed = self._seed + 1000 * (number + 1)
        game = _Game(self._law(prompt, case), self._bettors[case.name], number)
        options = self._harness.options(case, seed) | {
            "max_tokens": _TOKENS,
            "n": max(self._harness.max_tokens // 2, 2),
        }
        options["min_tokens"] = min(case.sampling.get("min_tokens", 0), _TOKENS)
        traces = [*self._traces(prompt, options), *self._traces(prompt, self._harness.options(case, seed + 1))]
        for trace in traces:
            for index, token in enumerate(trace.tokens):
                game.bet(trace, index, token)
        self._fork(traces[-1], game, seed + 2)
        draws = self.result.draws[case.name]
        draws.engine_tokens += sum(len(trace.tokens) for trace in traces)
        draws.tokens, draws.contexts = game.bettor.num_tokens, game.bettor.num_contexts
        draws.log_wealth = game.bettor.log_wealth

    def _fork(self, trace: Trace, game: _Game, seed: int) -> None:
        """What the engine's own law chooses for other samples, from the engine's logits, along an output."""
        law = trace.law
        assert law is not None  # kept with the rows
        step = max(len(trace.tokens) // _PLACES, 1)
        for index, (row, token) in enumerate(zip(trace.rows, trace.tokens, strict=True)):
            for sample in range(_FORKS if index % step == 0 else 0):
                fork = copy.copy(law)
                fork.noise = Noise(seed, sample, row.size)
                game.bet(trace, index, fork.sample(row).token)
            law.advance(token)


class _Game:
    """Bets on tokens after one prompt in one kind of sampling; the chances of each context are found once."""

    def __init__(self, law: ReferenceLaw, bettor: Bettor, number: int) -> None:
        self._law, self.bettor, self._number = law, bettor, number
        self._known: dict[tuple[bytes, tuple[int, ...]], Chances] = {}

    def bet(self, trace: Trace, index: int, token: int) -> None:
        """Bet on a token in the place of a trace's `index`-th."""
        row = trace.rows[index]
        context = (digest(row), tuple(trace.tokens[:index]))
        if context not in self._known:
            self._known[context] = self._law.chances(context[1], row)
        self.bettor.bet((self._number, *context), self._known[context], token)
