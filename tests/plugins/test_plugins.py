"""Drafters that other packages bring: found, listed with their package, used; one that is broken stops no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import paceline
from paceline import ConfigError
from paceline.drafters import automatic, available, base, make
from paceline.engine.request import Environment
from paceline.pacing import FixedPacer
from plugins.installing import pip_install, python_with, write_package

EXAMPLE = Path(__file__).parent / "example_drafter"
OWN = tuple(available())
GOOD = EXAMPLE.joinpath("example_drafter.py").read_text()
ENTRY = ":ExampleDrafter"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_install(EXAMPLE, tmp_path_factory.mktemp("example"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that this process sees; what it registers and imports is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(base, "_PACKAGES", {})
    yield tmp_path
    for name in ("example_drafter", *(path.stem for path in tmp_path.glob("*.py"))):
        sys.modules.pop(name, None)


def test_an_installed_drafter_is_used_as_any_other(
    installed: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    with paceline.load(drafters=["auto", "example:period=3"]) as llm:
        plain = llm.generate("Once upon a time", max_tokens=40, drafters="none")
        drafted = llm.generate("Once upon a time", max_tokens=40, pacer=FixedPacer(7))
    assert drafted.token_ids == plain.token_ids
    example = drafted.stats.drafters["example"]
    assert example.num_proposals > 0
    assert example.num_failures == 0
    assert len(drafted.stats.drafters) > 1


def test_an_installed_drafter_is_listed_with_its_package(python: str, installed: Path) -> None:
    done = python_with(python, installed, "-m", "paceline", "drafters")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("example ")]
    assert "Repeats the last few tokens." in line
    assert "example-drafter 1.5" in line
    assert "period" in done.stdout


def test_a_package_is_found_by_name_and_by_listing(site: Path) -> None:
    write_package(site, "good-drafter", "good", GOOD, {"good": f"good{ENTRY}"})
    made = make("good:period=5")
    assert (made.name, made.period) == ("good", 5)
    assert base.package_of("good") == "good-drafter 2.0"
    assert sorted(available()) == sorted([*OWN, "good"])
    with pytest.raises(ConfigError, match="good: period is 0; allowed: an integer, 1 to 64"):
        make("good:period=0")


def test_nothing_is_imported_that_is_not_asked_for(site: Path) -> None:
    write_package(site, "good-drafter", "good", GOOD, {"good": f"good{ENTRY}"})
    write_package(site, "other-drafter", "other", GOOD, {"other": f"other{ENTRY}"})
    make(OWN[0])
    automatic(Environment(None, 100, "cpu"))
    assert not {"good", "other"} & set(sys.modules)
    make("good")
    assert "other" not in sys.modules


def test_what_is_merely_installed_is_not_automatic_even_once_it_is_known(site: Path) -> None:
    before = automatic(Environment(None, 100, "cpu"))
    write_package(site, "good-drafter", "good", GOOD, {"good": f"good{ENTRY}"})
    assert "good" in available()
    assert automatic(Environment(None, 100, "cpu")) == before


BROKEN = {
    "an import that fails": ("import no_such_module", ENTRY, "ModuleNotFoundError: No module named 'no_such_module'"),
    "code that raises": ("1 / 0", ENTRY, "ZeroDivisionError: division by zero"),
    "a name that is not there": ("", ENTRY, "has no attribute 'ExampleDrafter'"),
    "no class": ("ExampleDrafter = 3", ENTRY, "is 3; allowed: a subclass of BaseDrafter"),
    "another class": ("class ExampleDrafter: ...", ENTRY, "allowed: a subclass of BaseDrafter"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_package_is_named_with_the_cause_and_stops_no_other(site: Path, fault: str) -> None:
    code, entry, cause = BROKEN[fault]
    write_package(site, "broken-drafter", "broken", code, {"broken": f"broken{entry}"})
    write_package(site, "good-drafter", "good", GOOD, {"good": f"good{ENTRY}"})
    with pytest.warns(RuntimeWarning) as told:
        assert sorted(available()) == sorted([*OWN, "good"])
    [warning] = [str(one.message) for one in told]
    assert warning.startswith("the drafter 'broken' of the package broken-drafter 2.0 cannot be had: ")
    assert cause in warning
    with pytest.raises(ConfigError) as refused:
        make("broken")
    assert str(refused.value) == warning


def test_a_package_takes_no_name_of_ours(site: Path) -> None:
    ours = available()[OWN[0]]
    write_package(site, "greedy-drafter", "greedy", GOOD, {OWN[0]: f"greedy{ENTRY}"})
    with pytest.warns(RuntimeWarning, match=f"the package greedy-drafter 2.0 .* the name '{OWN[0]}' is taken by pacel"):
        assert available()[OWN[0]] is ours
    assert type(make(OWN[0])) is ours


def test_of_two_packages_with_one_name_the_second_is_refused(site: Path) -> None:
    for package in ("first", "second"):
        write_package(site, f"{package}-drafter", package, GOOD, {"same": f"{package}{ENTRY}"})
    with pytest.warns(RuntimeWarning, match="the name 'same' is taken by (first|second).ExampleDrafter"):
        found = available()["same"]
    package = base.package_of("same")
    assert package is not None
    assert package.startswith(found.__module__)
