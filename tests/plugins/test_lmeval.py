"""lm-evaluation-harness gives the same numbers with our model as with its own, on tasks that are made here.

It is no part of the test extra: `pip install "paceline[eval]"` runs this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import paceline
from paceline.bundled import DEFAULT_TARGET, bundled_path

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and what it brings

STORIES = ("Lily went to the", "Once upon a time there was a", "The dog was sad because he", "Tom said: ")
ENDS = (
    ("park.", "park with her mom.", "seven."),
    ("girl named Lily.", "boy"),
    ("lost his ball.", "won"),
    ("no", "yes, mom"),
)
TASKS: dict[str, dict[str, Any]] = {
    "choosing": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{story}}",
        "doc_to_choice": "{{ends}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "num_fewshot": 0,
    },
    "saying": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{story}}",
        "doc_to_target": " {{ends[0]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{story}}",
        "doc_to_target": "{{ends[0]}}",
        "generation_kwargs": {"until": [".", "\n"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks, over a file of a few stories; one text is longer than the context of the models."""
    folder = tmp_path_factory.mktemp("tasks")
    docs = [
        {"story": s, "ends": list(e), "text": f"{s} {e[0]} " * (90 * (i == 0) + 1)}
        for i, (s, e) in enumerate(zip(STORIES, ENDS, strict=True))
    ]
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    for name, task in TASKS.items():
        where = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}}}
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, "test_split": "test", **where, **task}))
    return folder


def run(model: Any, folder: Path) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(model=model, tasks=list(TASKS), task_manager=manager, log_samples=True, bootstrap_iters=0)
    assert found is not None
    return found


def test_numbers_are_those_of_the_harnesss_own_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from paceline.lmeval import PacelineLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    place = str(bundled_path(DEFAULT_TARGET))
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    with paceline.load(model, tokenizer=place) as llm:
        ours = run(PacelineLM(llm), folder)
    theirs = run(HFLM(model, tokenizer=AutoTokenizer.from_pretrained(place), max_length=2048, device="cpu"), folder)
    for name in TASKS:
        expected = {key: value for key, value in theirs["results"][name].items() if isinstance(value, float)}
        assert expected
        assert {key: ours["results"][name][key] for key in expected} == pytest.approx(expected, rel=1e-4), name
        for own, other in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            for one, expected_one in zip(flat(own["resps"]), flat(other["resps"]), strict=True):
                is_number = isinstance(expected_one, float)
                assert one == (pytest.approx(expected_one, rel=1e-4) if is_number else expected_one), name


def flat(answers: Any) -> list[Any]:
    """Numbers, flags and texts of nested lists, in order."""
    if isinstance(answers, list | tuple):
        return [one for answer in answers for one in flat(answer)]
    return [answers]
