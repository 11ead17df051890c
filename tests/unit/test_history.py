"""The history of finished requests: per tenant, bounded, saved and loaded."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import ConfigError
from paceline.drafters.history import HistoryDrafter
from paceline.engine.request import DraftLimits, Environment, Hints, StepOutcome, Token
from paceline.engine.tree import DraftTree
from paceline.pacing.estimates import DrafterStatistics
from paceline.pacing.measuring import time_drafter
from paceline.testing import ScriptedTarget

_ids = itertools.count()
PLAIN = Environment(None, 1000, "cpu")


def history(environment: Environment = PLAIN, **options: object) -> HistoryDrafter:
    drafter = HistoryDrafter(**options)  # type: ignore[arg-type]
    drafter.attach(environment)
    return drafter


def asking(tokens: list[int], tenant: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        id=next(_ids), tokens=list(tokens), num_prompt_tokens=len(tokens), hints=Hints(tenant=tenant)
    )


def tell(drafter: HistoryDrafter, text: list[int], tenant: str = "", num_prompt_tokens: int = 1) -> None:
    """A request from its start to its end."""
    request = asking(text[:num_prompt_tokens], tenant)
    drafter.start(request)
    request.tokens += text[num_prompt_tokens:]
    drafter.finish(request)


def drafted(drafter: HistoryDrafter, context: list[int], tenant: str = "", budget: int = 5) -> DraftTree:
    request = asking(context, tenant)
    drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(budget))
    drafter.finish(request)
    return tree


def test_a_finished_request_drafts_for_the_next_its_prompt_and_its_output() -> None:
    drafter = history()
    tell(drafter, [1, 2, 3, 4, 5, 6], num_prompt_tokens=3)
    assert drafted(drafter, [9, 1, 2], budget=3).tokens == (3, 4, 5)
    assert not drafter._open


def test_there_is_nothing_to_do_until_something_is_remembered() -> None:
    drafter = history()
    first, second = asking([1, 2, 3]), asking([1, 2])
    assert not drafter.start(first)
    first.tokens += [4, 5]
    drafter.finish(first)
    assert drafter.start(second)
    drafter.finish(second)


def test_what_ended_before_anything_was_emitted_or_was_never_started_is_not_remembered() -> None:
    drafter = history()
    tell(drafter, [1, 2, 3, 4], num_prompt_tokens=4)
    drafter.finish(SimpleNamespace(id=-1))
    assert not drafter.start(asking([1, 2]))


tenanted = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", ""]), st.lists(st.integers(0, 3), min_size=2, max_size=20)), max_size=6
)


@settings(max_examples=40)
@given(tenanted, st.lists(st.integers(0, 3), min_size=2, max_size=8), st.booleans())
def test_a_tenant_is_drafted_for_as_if_there_were_no_other(tmp_path_factory, told, context, through_a_file) -> None:
    path = str(tmp_path_factory.mktemp("h") / "history.npz") if through_a_file else ""
    both, alone = history(path=path, min_score=0.0), history(min_score=0.0)
    for tenant, text in told:
        tell(both, text, tenant)
        if tenant == "ann":
            tell(alone, text, tenant)
    if through_a_file:
        both.close()
        both = history(path=path, min_score=0.0)
    assert drafted(both, context, "ann", 50) == drafted(alone, context, "ann", 50)


def test_what_was_of_use_is_kept_when_the_store_is_full() -> None:
    drafter, random = history(max_megabytes=0.1), np.random.default_rng(0)
    tell(drafter, [*range(500, 520)])
    tell(drafter, [*range(600, 620)])
    request = asking([500, 501])
    drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(2))
    request.tokens += [502, 503]
    emitted = (Token(502, "", "history", 0.0, 0.0), Token(503, "", "target", 0.0, 0.0))
    drafter.observe(StepOutcome(request, tree, (0,), emitted, np.zeros((3, 1000), np.float32)))
    drafter.observe(StepOutcome(request, DraftTree(), (), emitted[1:], np.zeros((1, 1000), np.float32)))
    for _ in range(11):
        tell(drafter, random.integers(0, 400, 400).tolist())
    assert drafted(drafter, [500, 501]).tokens[:2] == (502, 503)
    assert len(drafted(drafter, [600, 601])) == 0


def test_a_file_keeps_the_history_between_runs_with_the_same_proposals(tmp_path: Path) -> None:
    path, random = str(tmp_path / "history.npz"), np.random.default_rng(0)
    first = history(path=path)
    for _ in range(30):
        tell(first, random.integers(0, 12, 100).tolist())
    contexts = random.integers(0, 12, (20, 6)).tolist()
    trees = [drafted(first, context) for context in contexts]
    first.close()
    second = history(path=path)
    assert [drafted(second, context) for context in contexts] == trees
    assert sum(map(len, trees)) > 50


def test_the_file_is_saved_every_so_many_requests_and_names_no_tenant(tmp_path: Path) -> None:
    path = tmp_path / "history.npz"
    drafter = history(path=str(path), save_every=2)
    tell(drafter, [1, 2, 3, 4], "tenant-ann")
    assert not history(path=str(path)).start(asking([1]))
    tell(drafter, [1, 2, 3, 4], "tenant-ann")
    drafter._join()
    assert history(path=str(path)).start(asking([1]))
    assert b"tenant-ann" not in path.read_bytes()


def test_two_that_share_a_file_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "history.npz")
    first, second = history(path=path), history(path=path)
    tell(first, [1, 2, 3], "ann")
    tell(second, [4, 5, 6], "ann")
    second.close()
    first.close()
    both = history(path=path)
    assert drafted(both, [1, 2], "ann").tokens == (3,)
    assert drafted(both, [4, 5], "ann").tokens == (6,)


class Entries:
    """A tokenizer as far as its entries go."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}


def test_a_file_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "history.npz")
    history(Environment(Entries("a", "b"), 2, "cpu"), path=path).close()
    history(Environment(Entries("a", "b"), 2, "cpu"), path=path).close()
    with pytest.raises(ConfigError, match=r"vocabulary of 2 entries with fingerprint .*; allowed: the model's, 2 entr"):
        history(Environment(Entries("a", "c"), 2, "cpu"), path=path)


def test_a_damaged_file_and_a_full_disk_are_warned_of(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "history.npz"
    path.write_text("not a store")
    with pytest.warns(RuntimeWarning, match="history: .*damaged.*set aside"):
        drafter = history(path=str(path))
    tell(drafter, [1, 2, 3, 4])

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.warns(RuntimeWarning, match="history: nothing was saved to .*No space left"):
        drafter.close()


def test_finishing_takes_no_longer_than_a_server_can_wait() -> None:
    drafter, random = history(), np.random.default_rng(0)
    took = []
    for _ in range(20):
        text = random.integers(0, 1000, 2000).tolist()
        request = asking(text[:1])
        drafter.start(request)
        request.tokens += text[1:]
        started = time.perf_counter()
        drafter.finish(request)
        took.append(time.perf_counter() - started)
    assert sorted(took)[10] < 0.010


def test_what_a_drafter_is_timed_with_is_not_remembered(tmp_path: Path) -> None:
    path = str(tmp_path / "history.npz")
    first = history(path=path)
    tell(first, [1, 2, 3, 4])
    first.close()
    saved = Path(path).read_bytes()
    second = history(path=path)  # has something to draft from, so it takes part
    time_drafter(
        second, ScriptedTarget(lambda history: np.zeros(1000), 1000), 1.0, DrafterStatistics(1.0), time.perf_counter
    )
    assert len(second._store) == 4
    second.close()
    assert Path(path).read_bytes() == saved
