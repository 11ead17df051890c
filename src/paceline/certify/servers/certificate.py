"""What a comparison of two servers says, ready for JSON and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from paceline.certify.control import Control
from paceline.certify.rendering import render
from paceline.certify.servers.greedy import WAVERING_ALARM
from paceline.certify.servers.plan import ServersPlan
from paceline.certify.servers.sampled import FALSE_ALARM

FORMAT = "servers-1"
_NOT_SHOWN = [
    "Other prompts, parameters, lengths and seeds than those compared. These are samples, not a proof.",
    "Shifts smaller than the one that the test would find, or ones that show behind the sampled tokens.",
    "What the servers do under another load than that of the comparison. Speed.",
    "Whether the baseline is right: a fault of both is seen by neither.",
]


@dataclass
class ServersCertificate:
    """The findings. `verdict` follows from them."""

    plan: ServersPlan
    servers: dict[str, dict[str, Any]]  # "baseline", "candidate"
    greedy: dict[str, Any]
    sampled: dict[str, Any]
    controls: list[Control]
    notes: list[str]
    provenance: dict[str, Any]
    seconds: float

    @property
    def verdict(self) -> str:
        """FAIL if the servers differ; VOID if that they do not was not shown; else PASS."""
        if self.greedy["is_different"] or self.sampled["is_different"]:
            return "FAIL"
        return "VOID" if self.voids() else "PASS"

    def voids(self) -> list[str]:
        """What keeps the certificate from standing."""
        greedy, sampled = self.greedy, self.sampled
        found = []
        if not greedy["is_steady"]:
            own = greedy["steadiness"]["baseline"]
            found.append(
                f"the baseline repeats itself at temperature 0 on {own['same']} of {own['asked']} prompts only"
            )
        if greedy["missing"]:
            found.append(f"{greedy['missing']} of {greedy['prompts']} prompts have no greedy answer of both servers")
        if not sampled["is_answered"]:
            found.append(f"of the samples of a prompt only {sampled['least_answered']:.0%} were answered")
        if sampled["test"] is not None and sampled["test"]["power"]["distance"] is None:
            found.append("the samples vary too little, or are too few, for any shift to be found surely")
        return found + [f"a control failed: {control.name}" for control in self.controls if not control.is_caught]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        names = ("servers", "greedy", "sampled", "notes", "provenance", "seconds")
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "plan": self.plan.as_dict(),
            **{name: getattr(self, name) for name in names},
            "controls": [asdict(control) for control in self.controls],
            "voids": self.voids(),
            "not_shown": _NOT_SHOWN,
        }


def claim(found: Mapping[str, Any]) -> str:
    """The verdict in a few sentences."""
    greedy, sampled = found["greedy"], found["sampled"]
    said = []
    compared = greedy["prompts"] - greedy["missing"]
    if greedy["is_steady"]:
        said.append(f"Of {compared} greedy texts {greedy['equal']} are the baseline's.")
    else:
        stable = compared - greedy["unstable"]
        said.append(
            f"The baseline differs from itself on {greedy['unstable']} of {compared} prompts at temperature 0. On the "
            f"other {stable} the candidate has its text {greedy['equal']} times. That it differs so much oftener "
            f"from the baseline than the baseline from itself has p = {greedy['wavering_p_value']:.2g} by chance; it "
            f"is called different below {WAVERING_ALARM:g}."
        )
    said.append(_law(sampled))
    if found["verdict"] == "VOID":
        said.append(f"Void: {'; '.join(found['voids'])}.")
    return " ".join(said)


def _law(sampled: Mapping[str, Any]) -> str:
    test = sampled["test"]
    if test is None:
        return "No prompt has samples of both servers."
    p_value = min(test["p_sum"], test["p_max"])
    if sampled["is_different"]:
        return (
            f"The samples do not follow the baseline's law (p = {p_value:.2g}); most so in prompt "
            f"{test['worst_prompt'] + 1}, at a total variation distance of {test['worst_distance']:.2f}."
        )
    power = test["power"]
    if power["distance"] is None:
        seen = "No shift would have been found surely"
    else:
        seen = (
            f"A shift by a total variation distance of {power['distance']:g} in every prompt would be found "
            f"with a chance of about {power['chance']:.2f}"
        )
    return f"The samples show no other law (p = {p_value:.2g}). {seen}, at a false alarm in {1 / FALSE_ALARM:,.0f}."


def page(found: Mapping[str, Any]) -> str:
    """The HTML of the JSON object."""
    return render("servers.html", found, claim(found), false_alarm=FALSE_ALARM)
