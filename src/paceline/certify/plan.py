"""What a certificate compares: model, drafters, prompts, kinds of sampling, seed and time; written to JSON, read back.

Knows nothing of how anything is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError

FORMAT = 1
LEAST_TOKENS, MOST_TOKENS = 8, 48  # of an output, where nobody says otherwise


@dataclass(frozen=True)
class Case:
    """A kind of sampling, by name."""

    name: str
    sampling: Mapping[str, Any]

    @property
    def is_greedy(self) -> bool:
        """True at temperature 0."""
        return not self.sampling.get("temperature", 0.0)


@dataclass(frozen=True)
class Sizes:
    """How much of each part is done; found out by time in a first run, given when a certificate is verified."""

    comparisons: int
    law_rounds: int


@dataclass(frozen=True)
class CertifyPlan:
    """All that a certificate depends on beside the machine.

    Attributes:
        model: a bundled name, a folder or a hub name.
        dtype: as in `load`.
        device: as in `load`.
        drafters: drafters with their options, each of them also compared alone; none at all: random trees only;
            None, or "auto" among others: every drafter that works with its default options.
        prompts: texts.
        max_tokens: tokens of every output, at most; None: 48, or fewer where the model is slow.
        seed: where all seeds come from.
        seconds: when no further comparison is begun; each part's least coverage is done in any case.
        sizes: how much to do instead, whatever time it takes.
        draft_model: as in `load`.
    """

    model: str
    dtype: str
    device: str
    drafters: tuple[str, ...] | None
    prompts: tuple[str, ...]
    max_tokens: int | None = None
    seed: int = 0
    seconds: float = 75.0
    sizes: Sizes | None = None
    draft_model: str | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < LEAST_TOKENS:
            raise ConfigError(f"max_tokens is {self.max_tokens}; allowed: at least {LEAST_TOKENS}")
        if not self.seconds > 0:
            raise ConfigError(f"seconds is {self.seconds}; allowed: above 0")
        if not self.prompts or not all(isinstance(text, str) and text for text in self.prompts):
            raise ConfigError("there are no prompts, or an empty one; allowed: at least one, and none empty")

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def plan_from(found: Mapping[str, Any]) -> CertifyPlan:
    """The plan of a certificate's JSON object.

    Raises:
        ConfigError: it is not one, or of another release's format.
    """
    if found.get("format") != FORMAT:
        raise ConfigError(f"the certificate's format is {found.get('format')!r}; allowed: {FORMAT}")
    try:
        plan = dict(found["plan"])
        sizes = Sizes(**plan.pop("sizes"))
        found["verdict"], found["model"]["numerics"]["path"], found["model"]["files"]  # what is compared afterwards
        found["provenance"]["versions"], found["bytes"]["fingerprint"], found["bytes"]["total"]["decisions"]
        plan |= {name: tuple(plan[name]) for name in ("drafters", "prompts")}
        return CertifyPlan(**plan, sizes=sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the certificate holds no plan that can be run again: {error}") from error


def read_certificate(path: Path) -> dict[str, Any]:
    """The JSON object of a certificate, from its JSON file or from within its HTML file.

    Raises:
        ConfigError: the file cannot be read or is no certificate.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("<"):
            text = text.split(EMBEDDED, 1)[1].split("</script>", 1)[0]
        found = json.loads(text)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"cannot read {str(path)!r} ({error}); allowed: a certificate, JSON or HTML") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{str(path)!r} is no certificate: it holds no JSON object")
    return found


EMBEDDED = '<script type="application/json" id="certificate">'  # what stands before the JSON in the HTML


def cases_for(vocab_size: int, prompts: Sequence[Sequence[int]]) -> list[Case]:
    """The kinds of sampling that every way to decode is tried with; biased tokens are some of the prompts' own."""
    common = sorted({token for ids in prompts for token in ids[:3] if token < vocab_size})[:6]
    bias = {token: (-1.0) ** i * 1.5 for i, token in enumerate(common)} | {vocab_size - 1: -3.0}
    return [
        Case("greedy", {"temperature": 0.0}),
        Case("temperature 1", {"temperature": 1.0}),
        Case("top-k, top-p", {"temperature": 0.8, "top_k": 40, "top_p": 0.9}),
        Case("min-p, repetition", {"temperature": 1.2, "min_p": 0.05, "repetition_penalty": 1.2}),
        Case("presence, frequency", {"temperature": 0.9, "presence_penalty": 0.6, "frequency_penalty": 0.4}),
        Case("greedy, penalised", {"temperature": 0.0, "repetition_penalty": 1.3, "frequency_penalty": 0.5}),
        Case("bias, ends", {"temperature": 0.7, "logit_bias": bias, "min_tokens": 5, "ignore_eos": False}),
        Case("grammar", {"temperature": 1.0, "regex": "(yes|no|maybe)( [a-z]{1,8}){2,6}\\.", "ignore_eos": False}),
    ]
