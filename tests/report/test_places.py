"""What the drafts said beside each token: worked examples, and the engine's own trace against what it did."""

from __future__ import annotations

import pytest

from paceline.engine.tree import DraftTree
from paceline.report.places import Acceptance, Bin, acceptance, places, reliability
from paceline.testing import ScriptedDrafter
from report.support import decoded, step

#      root ─ 5 (0.6) ─ 2 (0.9)
#          └─ 3 (0.3) ─ 4 (0.5)
TREE = DraftTree((5, 2, 3, 4), (-1, 0, -1, 2), (0.6, 0.9, 0.3, 0.5), ("ann", "ann", "bob", "bob"))


@pytest.mark.parametrize(
    ("path", "tokens", "kinds", "doubts"),
    [
        ((), (6,), ["corrected"], [1.0]),
        ((0,), (5, 7), ["accepted", "corrected"], [0.4, 1.0]),
        ((0, 1), (5, 2, 9), ["accepted", "accepted", "bonus"], [0.4, 0.1, None]),
        ((2, 3), (3, 4, 1), ["accepted", "accepted", "bonus"], [0.7, 0.5, None]),
        ((0, 1), (5, 2), ["accepted", "accepted"], [0.4, 0.1]),  # a stop cut the bonus token
        ((0, 1), (5,), ["accepted"], [0.4]),
        ((), (5,), ["accepted"], [0.4]),  # the law failed behind an accepted node, which was given up
    ],
)
def test_places_of_one_step(path, tokens, kinds, doubts) -> None:
    found = places([step(TREE, path, len(tokens))], tokens)
    assert [place.kind for place in found] == kinds
    assert [place.depth for place in found] == list(range(1, len(tokens) + 1))
    assert [place.disagreement for place in found] == pytest.approx(doubts)


def test_tokens_without_a_record_count_as_undrafted() -> None:
    found = places([step(TREE, (), 1)], (3, 8, 9))
    assert [(p.kind, p.step) for p in found] == [("accepted", 0), ("plain", 1), ("plain", 1)]
    assert places([step(TREE, (), 1)], ()) == []  # a stream that nobody read


def test_only_nodes_whose_parent_was_accepted_are_judged() -> None:
    found = places([step(TREE, (0,), 2), step(TREE, (2, 3), 3)], (5, 7, 3, 4, 1))
    assert acceptance(found) == [
        Acceptance("ann", 1, 2, 1),
        Acceptance("ann", 2, 1, 0),
        Acceptance("bob", 1, 2, 1),
        Acceptance("bob", 2, 1, 1),
    ]
    assert reliability(found) == [
        Bin(pytest.approx(0.3), 0.5, 2),
        Bin(0.5, 1.0, 1),
        Bin(pytest.approx(0.6), 0.5, 2),
        Bin(0.9, 0.0, 1),
    ]


def test_a_certain_draft_falls_in_the_last_bin() -> None:
    sure = DraftTree((5,), (-1,), (1.0,), ("ann",))
    assert reliability(places([step(sure, (0,), 2)], (5, 1))) == [Bin(1.0, 1.0, 1)]


@pytest.mark.parametrize("right", [0, 1, 3])
@pytest.mark.parametrize("max_tokens", [1, 2, 23])
def test_the_trace_of_an_output_says_what_its_statistics_count(right: int, max_tokens: int) -> None:
    output = decoded(lambda model: [ScriptedDrafter.adversarial(model, right)], max_tokens=max_tokens, temperature=1.0)
    found = places(output.steps, output.token_ids)
    stats = output.stats
    assert len(output.steps) == stats.num_steps
    assert sum(record.num_emitted for record in output.steps) == len(output.tokens) == len(found)
    assert sum(len(record.tree) for record in output.steps) == stats.num_draft_tokens
    assert sum(place.kind == "accepted" for place in found) == stats.num_accepted_draft_tokens
    assert [place.kind == "accepted" for place in found] == [token.source != "target" for token in output.tokens]
    assert sum(row.num_accepted for row in acceptance(found)) == stats.num_accepted_draft_tokens
    spent = sum(r.draft_seconds + r.forward_seconds + r.commit_seconds for r in output.steps)
    assert spent == pytest.approx(stats.decode_seconds)
    assert sum(r.forward_seconds for r in output.steps) == pytest.approx(stats.forward_seconds)
