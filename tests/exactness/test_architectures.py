"""Each supported architecture: its own logits and text, the same bits with trees, and the caller's model untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exactness.conftest import Subjects
from exactness.decoding import RandomTrees, decode
from exactness.greedy import assert_greedy
from exactness.models import ARCHITECTURES
from exactness.subjects import Subject, job

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
GREEDY = job(150, 7, max_tokens=60)  # beyond the windows of 37, across the end of a tile


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def our_logits(subject: Subject) -> tuple[list[int], np.ndarray]:
    """The text of the greedy request, and the logits that each of its tokens was chosen from."""
    plain = subject.plain[GREEDY]
    return [*GREEDY.prompt, *plain.tokens[:-1]], np.stack(plain.rows)


@every_architecture
def test_logits_are_those_of_its_own_attention_up_to_rounding(subjects: Subjects, architecture):
    subject = subjects(architecture)
    text, ours = our_logits(subject)
    theirs = subject.own_logits(text)[len(GREEDY.prompt) - 1 :]
    assert distance(ours, theirs) < 1e-5


@every_architecture
def test_bf16_rounds_no_worse_than_its_own_attention(subjects: Subjects, architecture):
    """Both are measured against float32 with the same weights, so that no tolerance has to be chosen."""
    subject = subjects(architecture, torch.bfloat16)
    text, ours = our_logits(subject)
    exact, theirs = (subject.own_logits(text, dtype)[len(GREEDY.prompt) - 1 :] for dtype in (torch.float32, None))
    assert distance(ours, exact) < 1.3 * distance(theirs, exact)


@every_architecture
def test_greedy_fp32_is_what_transformers_generates(subjects: Subjects, architecture):
    subject = subjects(architecture)
    assert_greedy(subject.model, GREEDY.prompt, 60, subject.plain[GREEDY].tokens)


@every_architecture
@every_dtype
def test_trees_and_neighbours_change_no_bit(subjects: Subjects, architecture, dtype):
    subject = subjects(architecture, dtype)
    jobs = [job(120, 3, 21, temperature=1.0), job(1, 4, 9, temperature=0.7), job(197, 5, 13), job(62, 6, 7)]
    for seed, budget in enumerate((6, 15)):
        drafter = RandomTrees(subject.plain, jobs, seed, fill=seed == 0)
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, budget)) == []


@every_architecture
@every_dtype
def test_the_callers_model_is_as_it_was(subjects: Subjects, architecture, dtype):
    subject = subjects(architecture, dtype)
    subject.plain[GREEDY]  # loaded, and used
    subject.before.assert_still_true_of(subject.model)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_callers_model_is_as_it_was_after_close_too(architecture):
    subject = Subject(architecture)
    ids = torch.tensor([GREEDY.prompt])
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = subject.plain[GREEDY].tokens[:5]
    subject.llm.close()
    subject.before.assert_still_true_of(subject.model)
    assert subject.model.generate(ids, **settings)[0, ids.shape[1] :].tolist() == expected


def test_a_model_in_training_stays_in_training():
    subject = Subject("gpt2", train=True)
    assert all(module.training for module in subject.model.modules())
    subject.before.assert_still_true_of(subject.model)


def test_the_verdict_names_the_model_and_what_it_was_proven_on(subjects: Subjects):
    info = subjects("gemma2").llm.info
    assert info.architecture == "Gemma2ForCausalLM"
    assert info.verdict.startswith("exact: identical bits proven at")
    assert info.numerics["row_counts"] == list(subjects("gemma2").decoder.row_counts)
    assert info.note == ""
