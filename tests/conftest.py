"""Shared fixtures. Models are tiny and random, or the bundled ones: no download, no GPU."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is a bug
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in two processes; other thread counts have their own test
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers inherit it: what one measures, the others remember
    _shared = tempfile.TemporaryDirectory(prefix="paceline-tests-")
    atexit.register(_shared.cleanup)
    os.environ["PACELINE_CACHE"] = os.path.join(_shared.name, "cache")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # We are a shell's background job, and what a test starts and interrupts would ignore that too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import hypothesis
import pytest

import paceline
import warm

SHARED = Path(os.environ["PACELINE_CACHE"]).parent  # by all test processes of a run

hypothesis.settings.register_profile("paceline", deadline=None)  # other processes may hold any example up
hypothesis.settings.load_profile("paceline")


# Files that take longest, the dearest first: one that began last would keep one of two processes busy alone.
DEAREST = (
    "cli/test_cli.py",
    "cli/test_demo.py",
    "certify/test_certificate.py",
    "unit/test_api.py",
    "exactness/test_environments.py",
    "law/test_promises.py",
    "law/test_enumeration.py",
    "bench/test_peers.py",
    "certify/test_faults.py",
    "server/test_same_bytes.py",
    "law/test_closing.py",
    "server/test_process.py",
    "exactness/test_preemption.py",
    "server/test_playground_for_all.py",
    "bench/test_bench_load.py",
    "server/test_faults.py",
    "test_docs.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rest stays in the order of folders, so that what a folder shares is made once."""
    folder = Path(__file__).parent
    rank = {folder / name: place for place, name in enumerate(DEAREST)}
    assert all(path.is_file() for path in rank), DEAREST
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Garbage is looked for at the end of each file: amid all that is imported it takes a second each time."""
    gc.disable()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported for all files stays."""
    result = yield
    forget_what_stays()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """What a file has imported or made for others stays too."""
    result = yield
    if nextitem is not None and nextitem.path != item.path:
        forget_what_stays()
    return result


def forget_what_stays() -> None:
    """What is there now is no garbage, and need not be looked through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _garbage_of_closed_models_waits() -> Iterator[None]:
    """It goes at the end of a file: to look for it whenever a model is closed takes a tenth of a second each time."""
    has_models = "torch" in sys.modules  # else to read it would take seconds
    with patch("paceline.runtime._give_memory_back") if has_models else nullcontext():
        yield


@pytest.fixture(scope="session")
def python() -> Iterator[str]:
    """An interpreter for processes of their own that has read torch and transformers already."""
    with warm.python(SHARED) as command:
        yield command


@pytest.fixture
def _loggers_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    known = [root, *(logging.getLogger(name) for name in ("paceline", "uvicorn"))]
    before = [(one, one.level, list(one.handlers)) for one in known]
    yield
    logging.captureWarnings(False)
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


@pytest.fixture(scope="session")
def bundled() -> Iterator[paceline.LLM]:
    """The bundled target, as a newcomer loads it."""
    with paceline.load() as llm:
        yield llm


@pytest.fixture(scope="session")
def forced(bundled: paceline.LLM) -> Iterator[paceline.LLM]:
    """The bundled pair under a pacer that asks every drafter at every step."""
    with paceline.LLM.from_target(bundled.target, bundled.tokenizer, info=bundled.info) as llm:
        yield llm
