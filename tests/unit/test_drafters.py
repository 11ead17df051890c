"""The registry of drafters and their options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline import ConfigError
from paceline.drafters import BaseDrafter, automatic, available, make, named, option, register
from paceline.drafters.base import _REGISTRY, options_of
from paceline.engine.request import DraftLimits, Environment
from paceline.testing import ScriptedDrafter


@dataclass(eq=False)
class Sample(BaseDrafter):
    """A drafter with an option of each kind."""

    depth: int = option(4, ge=1, le=9, help="how deep")
    share: float = option(0.5, ge=0.0, le=1.0, help="how much")
    path: str = option("here", help="where")
    least: int = option(0, ge=-3, help="no upper bound")
    most: float = option(0.0, le=2.5, help="no lower bound")
    again: bool = option(False, help="whether")
    _texts: dict[int, str] = field(default_factory=dict, init=False)


@pytest.fixture(autouse=True, scope="module")
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
    drafter = make("sample:depth=7,share=0.25,path=a=b:c,least=-3,most=-1e3,again=true")
    assert (drafter.depth, drafter.share, drafter.path, drafter.least) == (7, 0.25, "a=b:c", -3)
    assert (drafter.most, drafter.again) == (-1000.0, True)
    assert make("sample:again=false").again is False


def test_a_comma_is_part_of_a_path_unless_an_option_follows() -> None:
    drafter = make("sample:path=/a,b=c/docs,depth=3")
    assert (drafter.path, drafter.depth) == ("/a,b=c/docs", 3)
    drafter = make("sample:depth=3,path=,,=,depth,path,")
    assert (drafter.path, drafter.depth) == (",,=,depth,path,", 3)


NAMES = [field.name for field in options_of(Sample)]
PIECES = (
    st.sampled_from([",", "=", ":", "/", "~", " ", "\n", "é", "path", "depth", "dept", "xdepth", *NAMES]) | st.text()
)


@given(st.lists(PIECES).map("".join), st.integers(1, 9), st.booleans())
def test_every_path_that_names_no_option_behind_a_comma_is_read_as_it_is(path: str, depth: int, first: bool) -> None:
    for name in NAMES:
        path = path.replace(f",{name}=", f",{name}")
    spec = f"sample:path={path},depth={depth}" if first else f"sample:depth={depth},path={path}"
    drafter = make(spec)
    assert (drafter.path, drafter.depth) == (path, depth)


@given(st.text())
def test_keywords_take_what_no_string_can_say(path: str) -> None:
    drafter = make("sample", path=f"{path},depth=3", share=np.float32(0.5))
    assert (drafter.path, drafter.depth, drafter.share) == (f"{path},depth=3", 4, 0.5)


@given(st.text())
def test_whatever_is_written_is_a_drafter_or_refused_by_a_config_error(text: str) -> None:
    try:
        made = make(f"sample:{text}")
    except ConfigError:
        return
    assert 1 <= made.depth <= 9


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
    "sample:depth=deep": "sample: depth is 'deep'; allowed: an integer, 1 to 9",
    "sample:depth=2.5": "sample: depth is '2.5'; allowed: an integer, 1 to 9",
    "sample:depth=": "sample: depth is ''; allowed: an integer, 1 to 9",
    "sample:depth=0": "sample: depth is 0; allowed: an integer, 1 to 9",
    "sample:depth=10": "sample: depth is 10; allowed: an integer, 1 to 9",
    "sample:share=nan": "sample: share is nan; allowed: a number, 0 to 1",
    "sample:share=half": "sample: share is 'half'; allowed: a number, 0 to 1",
    "sample:least=-4": "sample: least is -4; allowed: an integer, at least -3",
    "sample:most=2.6": "sample: most is 2.6; allowed: a number, at most 2.5",
    "sample:again=yes": "sample: again is 'yes'; allowed: true or false",
    "sample:depth=3,width=4": "drafter 'sample' has no option 'width=4'; allowed: depth=…",
    "sample:depth=3,": "drafter 'sample' has no option ''; allowed: depth=…",
    "sample:depth=3,depth=4": "sample: depth is given twice in 'depth=3,depth=4'; allowed: once",
    "sample:/docs,depth=3": "drafter 'sample' has no option '/docs'; allowed: depth=…",
}


@pytest.mark.parametrize("spec", BAD)
def test_a_bad_spec_is_refused_with_what_is_allowed(spec: str) -> None:
    with pytest.raises(ConfigError, match=BAD[spec]):
        make(spec)


BAD_VALUES = {
    "a float for an integer": ({"depth": 2.5}, "sample: depth is 2.5; allowed: an integer, 1 to 9"),
    "a flag for an integer": ({"depth": True}, "sample: depth is True; allowed: an integer, 1 to 9"),
    "a string for a number": ({"share": "0.5"}, "sample: share is '0.5'; allowed: a number, 0 to 1"),
    "a number for a flag": ({"again": 1}, "sample: again is 1; allowed: true or false"),
    "out of bounds": ({"depth": 10}, "sample: depth is 10; allowed: an integer, 1 to 9"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bounds_hold_for_objects_and_keywords_too(case: str) -> None:
    values, said = BAD_VALUES[case]
    with pytest.raises(ConfigError, match=said):
        Sample(**values)
    with pytest.raises(ConfigError, match=said):
        make("sample", **values)


def test_an_option_that_is_not_there_is_refused_as_a_keyword() -> None:
    with pytest.raises(ConfigError, match="drafter 'sample' has no option 'width'; allowed: depth=…"):
        make("sample", width=3)
    with pytest.raises(ConfigError, match="depth given beside an object"):
        make(ScriptedDrafter(), depth=3)


@pytest.mark.parametrize(
    "given", [3, None, Sample, object(), {"name": "sample"}], ids=lambda value: type(value).__name__
)
def test_what_is_no_drafter_is_refused_with_what_is(given: object) -> None:
    with pytest.raises(ConfigError, match="allowed: a name, a name with options, or an object with a name and"):
        make(given)


def test_an_option_has_a_default_that_text_can_stand_for() -> None:
    with pytest.raises(ConfigError, match="the default of an option is None; allowed: a str"):
        option(None, help="what")


def test_a_name_that_is_taken_is_refused_and_stays_as_it_was() -> None:
    class Other(BaseDrafter):
        """Another drafter."""

    with pytest.raises(
        ConfigError, match=r"the name 'sample' is taken by .*\.Sample; allowed: another name for .*Other"
    ):
        register("sample")(Other)
    assert available()["sample"] is Sample
    assert Other.name == "base"
    with pytest.raises(ConfigError, match="Sample is to be named 'second'; allowed: its name, 'sample'"):
        register("second")(Sample)
    assert Sample.name == "sample"


def test_a_class_that_is_defined_again_takes_its_own_place() -> None:
    def define() -> type[BaseDrafter]:
        class Sample(BaseDrafter):
            """As a cell of a notebook that is run again."""

        return Sample

    try:
        register("again")(define())
        newest = register("again")(define())
        assert available()["again"] is newest
    finally:
        del _REGISTRY["again"]


@pytest.mark.parametrize("name", ["", "auto", "none", "target", "a:b", "a,b", "a b", "a=b"])
def test_a_name_that_could_not_be_written_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the name of a drafter is "):
        register(name)


def test_a_drafter_that_is_registered_joins_the_automatic_ones() -> None:
    assert "sample" in automatic(Environment(None, 100, "cpu"))


def test_instances_get_names_of_their_own() -> None:
    names: list[str] = []
    for drafter in (Sample(), Sample(), ScriptedDrafter(), Sample(), ScriptedDrafter()):
        assert named(drafter, names) is drafter
        names.append(drafter.name)
    assert names == ["sample", "sample-2", "scripted", "sample-3", "scripted-2"]
    assert (Sample.name, ScriptedDrafter.name) == ("sample", "scripted")


def test_a_name_that_is_fixed_and_taken_is_refused() -> None:
    class Fixed(ScriptedDrafter):
        name = property(lambda self: "fixed")

    assert named(Fixed(), ["sample"]).name == "fixed"
    with pytest.raises(ConfigError, match="Fixed is named 'fixed' as another drafter is, and its name is fixed"):
        named(Fixed(), ["fixed"])


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
    assert [field.name for field in options_of(Sample)] == [*("depth", "share", "path", "least", "most", "again")]


def test_the_base_drafter_learns_nothing_and_proposes_nothing_of_its_own() -> None:
    with pytest.raises(NotImplementedError):
        BaseDrafter().propose([object()], [DraftLimits(3)])
