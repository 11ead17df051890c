"""What both servers are asked: greedy texts twice, samples, the same seed twice; and the controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

from paceline.certify.control import Control
from paceline.certify.servers.asking import Reply, Subject, together
from paceline.certify.servers.greedy import Greedy, Parting, Steadiness, margin_at, part, steadiness
from paceline.certify.servers.plan import ServersPlan
from paceline.certify.servers.sampled import Samples, TwoSample, all_likeliest

MOST_MISSING = 0.05  # the share of a prompt's samples without which a test still stands
_SEED_PROMPTS, _SEED_TOKENS = 8, 12  # how it is found out whether a seed is honoured
_MOST_PARTINGS = 10  # that are looked into
Advance = Callable[[], None]


@dataclass(frozen=True)
class Sampled:
    """The samples of all prompts: of the baseline two sets, of the candidate one."""

    first: list[list[Reply | None]]
    second: list[list[Reply | None]]
    candidate: list[list[Reply | None]]


class Trials:
    """Asks two servers."""

    def __init__(self, plan: ServersPlan, baseline: Subject, candidate: Subject, advance: Advance) -> None:
        self._plan, self._baseline, self._candidate, self._advance = plan, baseline, candidate, advance

    @staticmethod
    def num_requests(plan: ServersPlan) -> int:
        """About how many there will be."""
        prompts = len(plan.prompts)
        return prompts * (4 + 3 * plan.num_samples) + 4 * min(prompts, _SEED_PROMPTS)

    def greedy(self) -> list[Greedy]:
        """Texts at temperature 0, twice of each server; the seed, which should not matter, is another one."""
        plan, found = self._plan, []
        for seed in (plan.seed, plan.seed + 1):
            asked = [(subject, prompt) for prompt in plan.prompts for subject in (self._baseline, self._candidate)]
            found.append(self._ask([partial(s.ask, p, plan.max_tokens, 0.0, seed) for s, p in asked]))
        first, second = found
        return [
            Greedy(i, (first[2 * i], second[2 * i]), (first[2 * i + 1], second[2 * i + 1]))
            for i in range(len(plan.prompts))
        ]

    def partings(self, found: Sequence[Greedy]) -> list[Parting]:
        """Where the texts of the first prompts that differ part, with margins if the servers give them."""
        return [self._parting(one) for one in found if one.status == "different"][:_MOST_PARTINGS]

    def samples(self) -> Sampled:
        """Short texts at temperature 1; no two requests have the same seed, so that they are independent."""
        plan, seeds = self._plan, count(self._plan.seed + 2)
        subjects = (self._baseline, self._baseline, self._candidate)
        asked = [(s, p) for _ in range(plan.num_samples) for p in plan.prompts for s in subjects]
        texts = self._ask([partial(s.ask, p, plan.sample_tokens, 1.0, next(seeds)) for s, p in asked])
        step = len(subjects) * len(plan.prompts)
        sets = [
            [texts[len(subjects) * i + place :: step] for i in range(len(plan.prompts))]
            for place in range(len(subjects))
        ]
        return Sampled(*sets)

    def seeds(self) -> tuple[Steadiness, Steadiness]:
        """Whether each server gives a seed's text again."""
        prompts = self._plan.prompts[:_SEED_PROMPTS]
        asked = [(s, p) for s in (self._baseline, self._candidate) for p in prompts for _ in range(2)]
        found = self._ask([partial(s.ask, p, _SEED_TOKENS, 1.0, self._plan.seed) for s, p in asked])
        pairs = list(zip(found[::2], found[1::2], strict=True))
        return steadiness(pairs[: len(prompts)]), steadiness(pairs[len(prompts) :])

    def _ask(self, calls: Sequence[Callable[[], Reply | None]]) -> list[Reply | None]:
        return together(self._plan.concurrency, calls, self._advance)

    def _parting(self, one: Greedy) -> Parting:
        first, other = one.baseline[0], one.other
        assert first is not None
        assert other is not None
        parting = part(one.prompt, first.text, other.text)
        prompt, max_tokens = self._plan.prompts[one.prompt], self._plan.max_tokens
        token, margin = margin_at(self._baseline.chances(prompt, max_tokens), first.text, parting.character)
        _, other_margin = margin_at(self._candidate.chances(prompt, max_tokens), other.text, parting.character)
        return replace(parting, token=token, baseline_margin=margin, candidate_margin=other_margin)


def judge_samples(sampled: Sampled, seed: int) -> tuple[dict[str, Any], list[Control]]:
    """The two-sample tests: candidate against baseline, the baseline against itself, and with a planted fault."""
    sets = [[[r.text for r in replies if r is not None] for replies in own] for own in vars(sampled).values()]
    usable = [i for i, own in enumerate(zip(*sets, strict=True)) if all(own)]
    fewest = min(len(texts) / len(sampled.first[i]) for own in sets for i, texts in enumerate(own))
    about = {"prompts": len(usable), "least_answered": fewest, "is_answered": fewest >= 1 - MOST_MISSING}
    if not usable:
        return {**about, "test": None, "is_different": False}, []
    first, second, candidate = ([own[i] for i in usable] for own in sets)
    pooled = [one + other for one, other in zip(first, second, strict=True)]
    test = TwoSample([Samples(*pair) for pair in zip(pooled, candidate, strict=True)], seed)
    itself = TwoSample([Samples(*pair) for pair in zip(first, second, strict=True)], seed)
    planted = TwoSample([Samples(one, all_likeliest(other)) for one, other in zip(first, second, strict=True)], seed)
    is_different = test.is_different and not itself.is_different
    found = {**about, "test": _as_dict(test, usable), "is_different": is_different}
    return found, [_self_control(itself), _planted_control(planted)]


def _as_dict(test: TwoSample, usable: Sequence[int]) -> dict[str, Any]:
    return {
        "p_sum": test.p_sum,
        "p_max": test.p_max,
        "worst_prompt": usable[test.worst],
        "worst_distance": test.distances[test.worst],
        "distances": list(test.distances),
        "kinds": list(test.num_kinds),
        "power": vars(test.power()),
    }


def greedy_controls(found: Sequence[Greedy]) -> list[Control]:
    """A character of a text of the baseline's changed: it must be found, where it is."""
    one = next((one.baseline[0] for one in found if one.baseline[0] is not None and one.baseline[0].text), None)
    if one is None:
        return []
    place = len(one.text) // 2
    changed = one.text[:place] + ("x" if one.text[place] != "x" else "y") + one.text[place + 1 :]
    reply = Reply(changed, one.finish_reason)
    planted = Greedy(0, (one, one), (reply, reply))
    is_caught = planted.status == "different" and part(0, one.text, changed).character == place
    name = "one character of a greedy text is another"
    return [Control(name, "in the middle of a text of the baseline's", "greedy", is_caught, f"at character {place}")]


def _self_control(test: TwoSample) -> Control:
    found = f"p = {min(test.p_sum, test.p_max):.2g}: two sets of its samples " + (
        "differ, so that nothing follows from the candidate's" if test.is_different else "do not differ"
    )
    name = "the baseline is its own candidate"
    return Control(name, "nothing: no difference may be found", "distribution", not test.is_different, found)


def _planted_control(test: TwoSample) -> Control:
    found = f"p = {min(test.p_sum, test.p_max):.2g}"
    name = "every sample is the prompt's likeliest"
    return Control(name, "in one of two sets of the baseline's samples", "distribution", test.is_different, found)
