"""What was learnt from labelled examples: a temperature, a threshold, and what they promise. A file of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError


@dataclass(frozen=True)
class Calibration:
    """When a decision may be relied on.

    Attributes:
        model: the name of the model that it was learnt for.
        fingerprint: what tells that model from others by any bit of its weights.
        temperature: of the choices' probabilities.
        threshold: what is less likely than this is not answered.
        error: of what is answered, at most this share is wrong,
        confidence: with this probability over the draw of examples; they have to be like those that follow.
        num_fitted: examples that the temperature was learnt from.
        num_tested: other ones, that the threshold was put to the test with.
        num_answered: of those.
        num_wrong: of those answered.
        choices: the names of the choices, if they were the same in all examples: then no other may be decided.
        end: what stood behind a choice, as in `decide`.
    """

    model: str
    fingerprint: str
    temperature: float
    threshold: float
    error: float
    confidence: float
    num_fitted: int
    num_tested: int
    num_answered: int
    num_wrong: int
    choices: tuple[str, ...] | None = None
    end: tuple[str, ...] | None = None

    @property
    def promise(self) -> str:
        """What it says, in a sentence."""
        sure = f"{100 * self.confidence:g} %"
        return f"of what is answered at most {100 * self.error:g} % is wrong, with a confidence of {sure}"

    @property
    def evidence(self) -> str:
        """What that rests on, in a sentence."""
        share = 100 * self.num_answered / self.num_tested
        return (
            f"at a threshold of {self.threshold:.4g} and a temperature of {self.temperature:.3g}, {self.num_answered} "
            f"of {self.num_tested} examples ({share:.1f} %) were answered, {self.num_wrong} of them wrong"
        )

    def write(self, path: Path) -> None:
        """Write it to a file.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{str(path)!r}: {error}; allowed: a file that can be written") from error

    def check(self, fingerprint: str, choices: Sequence[str]) -> None:
        """Refuse another model, and other choices.

        Raises:
            ConfigError: it was learnt for something else.
        """
        if fingerprint != self.fingerprint:
            raise ConfigError(
                f"the calibration was learnt for {self.model or 'a model'} ({self.fingerprint}), not for this model "
                f"({fingerprint}); allowed: one that `paceline calibrate` wrote for this model"
            )
        if self.choices is not None and sorted(choices) != sorted(self.choices):
            raise ConfigError(
                f"the choices are {', '.join(choices)}; allowed by the calibration: {', '.join(self.choices)}"
            )


def as_calibration(value: Any) -> Calibration:
    """A calibration, or the file that holds one.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, Calibration):
        return value
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"calibration is {value!r}; allowed: a file that `paceline calibrate` wrote")
    try:
        told = json.loads(Path(value).read_text(encoding="utf-8"))
        lists = {name: tuple(told[name]) for name in ("choices", "end") if told.get(name) is not None}
        found = Calibration(**{**told, **lists})
        checked = [float(getattr(found, field.name)) for field in fields(found) if field.type in ("float", "int")]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"cannot read a calibration from {str(value)!r} ({error}); allowed: a file that `paceline calibrate` wrote"
        ) from error
    if not (found.temperature > 0.0 and 0.0 <= found.threshold <= 1.0 and all(number >= 0.0 for number in checked)):
        raise ConfigError(f"{str(value)!r} has numbers out of range; allowed: a file that `paceline calibrate` wrote")
    return found
