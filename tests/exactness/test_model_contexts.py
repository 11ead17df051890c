"""The draft model's own contexts: a request is pinned to the same in both models."""

from __future__ import annotations

import pytest

from exactness.decoding import decode
from exactness.models import VOCAB
from exactness.subjects import Subject, job
from exactness.test_context import SCALED
from paceline.drafters.model import ModelDrafter
from paceline.engine.request import Environment


@pytest.mark.parametrize("scaling", SCALED)
def test_drafts_of_the_model_itself_are_right_in_every_context(scaling: str) -> None:
    architecture, changes, _ = SCALED[scaling]
    subject, drafter = Subject(architecture, **changes), ModelDrafter()
    drafter.attach(Environment(None, VOCAB, "cpu", subject.model))
    jobs = [job(length - 40, 14, 30) for length in subject.target.contexts]
    found = decode(subject.target, jobs, drafter, 7 * len(jobs))
    drafter.close()
    assert subject.plain.differences(jobs, found) == []
    assert all(sum(trace.accepted) > 15 for trace in found)
    subject.llm.close()
