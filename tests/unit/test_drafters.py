"""The registry of drafters and their options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from paceline import ConfigError
from paceline.drafters import BaseDrafter, available, make, option, register
from paceline.drafters.base import _REGISTRY, options_of
from paceline.testing import ScriptedDrafter


@dataclass(eq=False)
class Sample(BaseDrafter):
    """A drafter with an option of each kind."""

    depth: int = option(4, ge=1, le=9, help="how deep")
    share: float = option(0.5, ge=0.0, le=1.0, help="how much")
    path: str = option("here", help="where")
    least: int = option(0, ge=-3, help="no upper bound")
    _texts: dict[int, str] = field(default_factory=dict, init=False)


@pytest.fixture(autouse=True)
def _sample():
    register("sample")(Sample)
    yield
    del _REGISTRY["sample"]


def test_a_name_makes_the_drafter_with_its_defaults() -> None:
    drafter = make("sample")
    assert isinstance(drafter, Sample)
    assert drafter == drafter
    assert (drafter.name, drafter.depth, drafter.path) == ("sample", 4, "here")


def test_options_are_parsed_by_their_kind() -> None:
    drafter = make("sample:depth=7,share=0.25,path=a=b:c,least=-3")
    assert (drafter.depth, drafter.share, drafter.path, drafter.least) == (7, 0.25, "a=b:c", -3)


def test_an_object_passes_through() -> None:
    drafter = ScriptedDrafter()
    assert make(drafter) is drafter


BAD = {
    "nobody": "unknown drafter 'nobody'; allowed: .*sample",
    "": "unknown drafter ''; allowed: ",
    "nobody:depth=3": "unknown drafter 'nobody'",
    "sample:width=3": "drafter 'sample' has no option 'width=3'; allowed: depth=…, share=…, path=…, least=…",
    "sample:depth": "drafter 'sample' has no option 'depth'; allowed: depth=…",
    "sample:_texts=3": "drafter 'sample' has no option '_texts=3'",
    "sample:depth=deep": "sample: depth is 'deep'; allowed: int",
    "sample:depth=2.5": "sample: depth is '2.5'; allowed: int",
    "sample:depth=": "sample: depth is ''; allowed: int",
    "sample:depth=0": "sample: depth is 0; allowed: from 1 to 9",
    "sample:depth=10": "sample: depth is 10; allowed: from 1 to 9",
    "sample:share=nan": "sample: share is nan; allowed: from 0.0 to 1.0",
    "sample:share=half": "sample: share is 'half'; allowed: float",
    "sample:least=-4": "sample: least is -4; allowed: at least -3",
}


@pytest.mark.parametrize("spec", BAD)
def test_a_bad_spec_is_refused_with_what_is_allowed(spec: str) -> None:
    with pytest.raises(ConfigError, match=BAD[spec]):
        make(spec)


def test_two_of_a_name_are_two_drafters() -> None:
    assert make("sample") is not make("sample")
    assert make("sample") != make("sample")


def test_every_registered_drafter_can_be_a_key_and_has_a_name_and_documented_options() -> None:
    for name, cls in available().items():
        assert cls.name == name
        assert cls.__hash__ is object.__hash__  # two drafters alike in options are still two
        assert cls.__doc__
        for entry in options_of(cls):
            assert entry.metadata["help"]
            assert entry.default is not dataclasses.MISSING


def test_the_state_of_a_drafter_is_no_option() -> None:
    assert [field.name for field in options_of(Sample)] == ["depth", "share", "path", "least"]


def test_the_base_drafter_learns_nothing_and_proposes_nothing_of_its_own() -> None:
    with pytest.raises(NotImplementedError):
        list(BaseDrafter().propose([object()], [3]))
