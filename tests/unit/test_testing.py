"""The public fakes: they keep to their ports, and notice an engine that does not."""

from __future__ import annotations

import inspect
from unittest.mock import MagicMock

import numpy as np
import pytest

from law.support import Kind, target_of
from paceline import LLM, EngineError
from paceline.engine.ports import Pacer, Target
from paceline.engine.request import DraftLimits
from paceline.engine.tree import DraftTree
from paceline.pacing import FixedPacer
from paceline.testing import (
    RandomTrees,
    Recorder,
    ScriptedDrafter,
    ScriptedTarget,
    WrappedPacer,
    WrappedTarget,
    chain,
)

VOCAB = 7


def running(target: ScriptedTarget, prompt=(1, 2, 3)):
    """A request whose prompt the target has read, and which has room for 20 rows."""
    request = Kind({}).request(VOCAB, 20, prompt=prompt)
    assert target.reserve(request, 0)
    while (num_unread := target.num_unread(request)) > 0:
        assert target.read(request, 1) == 1
        assert target.num_unread(request) == num_unread - 1
    assert target.grow(request, 20) == 20
    return request


def test_the_example_of_the_module_runs() -> None:
    target = ScriptedTarget(lambda history: -np.arange(5.0), vocab_size=5)
    llm = LLM.from_target(target, tokenizer=None, drafters=[ScriptedDrafter.perfect(target)])
    assert llm.generate([3, 1], max_tokens=8).token_ids == (0,) * 8
    assert target.num_forwards == 1


def test_logits_are_those_of_the_history_along_each_branch() -> None:
    target = target_of(VOCAB)
    request = running(target)
    tree = DraftTree((5, 6, 4), (-1, 0, -1), (1.0,) * 3, ("x",) * 3)
    [rows] = target.score([(request, tree)])
    histories = [(1, 2, 3), (1, 2, 3, 5), (1, 2, 3, 5, 6), (1, 2, 3, 4)]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [target.logits(history) for history in histories])


def test_a_committed_path_becomes_the_cache() -> None:
    target = target_of(VOCAB)
    request = running(target)
    target.score([(request, chain([5, 6, 4]))])
    target.commit(request, (0, 1))
    request.tokens += [5, 6, 0]
    assert target.grow(request, 1) == 1
    [rows] = target.score([(request, DraftTree())])
    np.testing.assert_array_equal(rows, [target.logits((1, 2, 3, 5, 6, 0))])


@pytest.mark.parametrize("path", [(), (0,), (0, 1, 2)], ids=str)
def test_a_cache_that_does_not_hold_the_tokens_is_noticed(path: tuple[int, ...]) -> None:
    target = target_of(VOCAB)
    request = running(target)
    target.score([(request, chain([5, 6, 4]))])
    target.commit(request, path)
    request.tokens += [5, 6, 0]
    with pytest.raises(AssertionError, match="not over tokens"):
        target.score([(request, DraftTree())])


@pytest.mark.parametrize("path", [(1,), (0, 2), (0, 1, 3), (1, 0), (0, -1), (-1,)], ids=str)
def test_a_path_that_is_none_is_noticed(path: tuple[int, ...]) -> None:
    target = target_of(VOCAB)
    request = running(target)
    target.score([(request, DraftTree((5, 6, 4), (-1, 0, -1), (1.0,) * 3, ("x",) * 3))])
    with pytest.raises(AssertionError, match="is no path of its tree"):
        target.commit(request, path)


def test_a_request_that_was_never_read_is_noticed() -> None:
    target = target_of(VOCAB)
    request = Kind({}).request(VOCAB, 20)
    with pytest.raises(AssertionError, match="without having been reserved"):
        target.read(request, 5)
    with pytest.raises(AssertionError, match="is scored over None"):
        target.score([(request, DraftTree())])


def test_more_rows_than_a_forward_takes_are_noticed() -> None:
    target = target_of(VOCAB, max_rows=8)
    first, second = running(target), running(target)
    target.score([(first, chain([0] * 5)), (second, chain([0] * 1))])
    with pytest.raises(AssertionError, match="more draft nodes than fit"):
        target.score([(first, chain([0] * 6)), (second, chain([0]))])


def test_a_row_beyond_the_context_is_noticed() -> None:
    target = ScriptedTarget(lambda history: [0.0] * VOCAB, VOCAB, max_length=5)
    request = running(target)
    target.score([(request, chain([0, 1]))])
    with pytest.raises(AssertionError, match="a row beyond the context"):
        target.score([(request, chain([0, 1, 2]))])


def test_a_script_of_the_wrong_shape_is_noticed() -> None:
    target = ScriptedTarget(lambda history: [0.0] * 6, VOCAB)
    with pytest.raises(EngineError, match=r"shape \(6,\); allowed: \(7,\)"):
        LLM.from_target(target, None).generate([1])


def test_cache_is_reserved_for_what_there_is_grows_and_is_given_back() -> None:
    target = ScriptedTarget(lambda history: [0.0] * VOCAB, VOCAB, cache_tokens=10)
    first, second, third = (Kind({}).request(VOCAB, 20) for _ in range(3))  # prompts of two
    assert target.reserve(first, 0)
    assert target.reserve(second, 6)
    assert not target.reserve(third, 5)
    assert target.num_free == 6
    target.read(first, 9)
    assert target.grow(first, 5) == 5
    target.score([(first, chain([0] * 4))])
    with pytest.raises(AssertionError, match="brings 6 rows where there is room for 5"):
        target.score([(first, chain([0] * 5))])
    target.commit(first, (0,))
    assert target.num_free == 4  # three positions are committed, and there is room for one
    assert target.grow(first, 9) == 5
    assert target.cache_usage == 1.0
    target.free(first)
    target.free(first)  # once more does nothing
    assert (target.num_held, target.num_free) == (1, 8)
    assert target.reserve(first, 6)
    with pytest.raises(AssertionError, match="reserved twice"):
        target.reserve(first, 0)


def test_a_queue_of_proposals_is_proposed_in_order_and_then_nothing() -> None:
    tree = DraftTree((5, 6), (-1, -1), (0.5, 0.25), ("x", "x"))
    drafter = ScriptedDrafter([[1, 2, 3], (), tree, [4]])
    request = Kind({}).request(VOCAB, 20)
    proposals = [drafter.propose_one(request, DraftLimits(2)) for _ in range(6)]
    assert proposals == [chain([1, 2]), DraftTree(), tree, chain([4]), DraftTree(), DraftTree()]


@pytest.mark.parametrize(("right", "accepted"), [(0, 0), (1, 1), (3, 3), (9, 5)])
def test_an_adversarial_drafter_is_right_as_often_as_it_is_told(right: int, accepted: int) -> None:
    target = target_of(VOCAB)
    drafter = ScriptedDrafter.adversarial(target, right)
    LLM.from_target(target, None, drafters=[drafter]).generate([1], max_tokens=6, temperature=1.0, seed=3)
    assert drafter.outcomes[0].num_accepted_drafts == accepted


def test_a_perfect_drafter_does_not_disturb_the_law() -> None:
    target = target_of(VOCAB)
    options = {"max_tokens": 20, "temperature": 1.0, "seed": 3, "frequency_penalty": 2.0}
    plain = LLM.from_target(target, None, drafters="none").generate([1], **options)
    perfect = LLM.from_target(target, None, drafters=[ScriptedDrafter.perfect(target)]).generate([1], **options)
    assert perfect.token_ids == plain.token_ids
    assert perfect.stats.num_steps == 3


METHODS = [
    (port, wrapper, name)
    for port, wrapper in ((Pacer, WrappedPacer), (Target, WrappedTarget))
    for name, member in vars(port).items()
    if inspect.isfunction(member) and not name.startswith("_")
]


@pytest.mark.parametrize(("port", "wrapper", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_what_wraps_a_port_passes_every_method_on(port: type, wrapper: type, name: str) -> None:
    inner = MagicMock()
    arguments = [object() for _ in inspect.signature(getattr(port, name)).parameters][1:]
    returned = getattr(wrapper(inner), name)(*arguments)
    getattr(inner, name).assert_called_once_with(*arguments)
    if inspect.signature(getattr(port, name)).return_annotation != "None":
        assert returned is getattr(inner, name).return_value


def test_what_wraps_a_target_has_its_sizes() -> None:
    target = target_of(VOCAB)
    wrapped = WrappedTarget(target)
    for name in ("vocab_size", "max_length", "capacity", "row_counts"):
        assert getattr(wrapped, name) == getattr(target, name)


def test_a_recorder_finds_the_first_decision_that_is_not_the_expected_one() -> None:
    target = ScriptedTarget(lambda history: np.random.default_rng(len(history)).normal(size=VOCAB), VOCAB)
    recorder = Recorder(FixedPacer(4))
    with LLM.from_target(target, tokenizer=None, drafters="none") as llm:
        plain = llm.generate([3, 1], max_tokens=9, pacer=recorder)
        [trace] = recorder.traces
        assert tuple(trace.tokens) == plain.token_ids
        trees = RandomTrees({(3, 1): trace.tokens}, VOCAB)
        recorder.restart([trace])
        llm.generate([3, 1], max_tokens=9, pacer=recorder, drafters=[ScriptedDrafter(trees.grow)])
        assert not recorder.mismatches
        assert recorder.traces[0].num_drafts > 0
        trace.digests[5] = b"other bits"
        recorder.restart([trace])
        llm.generate([3, 1], max_tokens=9, pacer=recorder)
    [mismatch] = recorder.mismatches
    assert (mismatch.index, mismatch.token, mismatch.has_equal_bits) == (5, trace.tokens[5], False)
