from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from paceline import LLM
from paceline.bench.shapes import MAX_LENGTH
from paceline.drafters import available
from paceline.errors import ConfigError

Bench = Callable[..., Result]
SHORT = ("--max-tokens", 6, "--repeats", 1, "--budgets", "3")


def test_decode_compares_everything(bench: Bench, tiny: str, prompts: str, tmp_path: Path) -> None:
    path = tmp_path / "decode.json"
    options = (
        "--model",
        tiny,
        "--draft",
        tiny,
        "--prompts",
        prompts,
        "--temperature",
        0,
        "--temperature",
        0.8,
    )
    result = bench("decode", *options, *SHORT, "--json", path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert found["provenance"]["command"]
    greedy, sampled = found["runs"]
    assert greedy["same_bytes"]
    assert sampled["same_bytes"]
    assert (greedy["plan"]["temperature"], sampled["plan"]["temperature"]) == (0.0, 0.8)
    assert greedy["collecting_seconds"] >= 0.0
    check_contenders(greedy)


def check_contenders(run: dict[str, Any]) -> None:
    contenders = {entry["name"]: entry for entry in run["contenders"]}
    kinds = [kind for kind in ("suffix", "model", "suffix+model") if set(kind.split("+")) <= set(available())]
    swept = [f"paceline {drafters}, budget 3" for drafters in kinds]
    transformers = [f"transformers {way}" for way in ("generate", "prompt lookup", "assisted")]
    assert {*swept, *transformers, "paceline plain"} <= contenders.keys()
    assert run["best_fixed"] in swept
    assert run["transformers_equal_to_plain"] == len(run["prompts"]) == 2  # float32 and a wide random model
    for entry in contenders.values():
        assert entry["by_category"].keys() == {"story", "list"}
        assert entry["over_plain"]["minimum"] <= entry["over_plain"]["mean"]
    for model in [contenders[name]["steps"] for name in swept if name.startswith("paceline model")]:
        assert model["mean_acceptance_length"] > 1.0  # the draft model is the target itself
        assert model["num_drafter_failures"] == 0
    for prompt in run["prompts"]:
        assert len(prompt["plain_tokens"]) == 6
        assert prompt["seconds"].keys() == contenders.keys()


@pytest.mark.skipif("suffix" not in available(), reason="nothing drafts without a draft model")
def test_a_byte_that_differs_is_an_error(
    bench: Bench, tiny: str, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_generate = LLM.generate

    def generate(self: LLM, prompt: Any, *, drafters: Any = None, **sampling: Any) -> Any:
        output = true_generate(self, prompt, drafters=drafters, **sampling)
        return replace(output, token_ids=(*output.token_ids[:-1], 0)) if drafters else output

    monkeypatch.setattr(LLM, "generate", generate)
    path = tmp_path / "decode.json"
    result = bench("decode", "--model", tiny, "--prompts", prompts, *SHORT, "--json", path)
    assert result.exit_code == 1
    assert "token 5 differs" in result.stderr
    run = json.loads(path.read_text())["runs"][0]
    assert not run["same_bytes"]
    assert {m["contender"] for m in run["mismatches"]} == {"paceline suffix, budget 3"}


def test_the_prompts_measured_are_named(bench: Bench, tiny: str, tmp_path: Path) -> None:
    prompts = tmp_path / "anything"
    lines = [{"question_id": i, "category": "ab"[i % 2], "turns": [f"Prompt {i}", "Again"]} for i in range(9)]
    lines.append({"question_id": 9, "category": "b", "turns": ["x" * (MAX_LENGTH + 900)]})
    prompts.write_text("\n".join(map(json.dumps, lines)))
    path = tmp_path / "decode.json"
    result = bench("decode", "--model", tiny, "--prompts", prompts, "--limit", 5, *SHORT, "--json", path)
    assert result.exit_code == 0, result.output
    assert "Spec-Bench or MT-Bench" in result.output
    assert "Left out: 1 prompts that do not fit beside 6 tokens" in result.output
    found = json.loads(path.read_text())
    assert found["kind"] == "decode"
    about = found["runs"][0]["prompt_set"]
    assert (about["num_prompts"], about["limit"], about["num_too_long"]) == (10, 5, 1)
    assert "no chat template" in about["form"]
    assert len(found["runs"][0]["prompts"]) == 9


def test_a_file_that_could_not_be_written_is_refused_before_measuring(bench: Bench, tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "none" / "decode.json"):
        for command in ("decode", "step"):
            assert isinstance(bench(command, "--json", wrong).exception, ConfigError)


def test_prompts_that_cannot_be_read_are_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "no prompt"}\n')
    for wrong in (path, tmp_path / "none.jsonl"):
        assert isinstance(bench("decode", "--prompts", wrong).exception, ConfigError)
