"""From a folder to drafts: a head that fits is taken whatever its files say, and one that does not is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

import paceline
from heads.test_probe import block, eagle
from heads.trained import fit, plain
from heads.writers import SIZES, speculators, write
from paceline.cli import app
from paceline.cli.head import chain
from paceline.heads import adopting
from paceline.heads.prompting import prompts_for
from paceline.heads.seen import look
from paceline.model.inspect import sample_tokens
from paceline.pacing import FixedPacer


@pytest.fixture(scope="module")
def llm(target: LlamaForCausalLM) -> Iterator[paceline.LLM]:
    """The target behind the front door."""
    with patch.object(adopting, "NUM_TEXTS", 4), paceline.LLM(copy.deepcopy(target), cache_tokens=2048) as made:
        yield made


@pytest.fixture(scope="module")
def folders(llm: paceline.LLM, target: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """EAGLE-3 with numbers of layers one off; a DSpark head likewise; one that was not trained."""
    root = tmp_path_factory.mktemp("heads")
    seen = plain(look(llm.target.decoder, prompts(llm), range(6), llm.target.max_length - 1))
    ids = {"eagle_aux_hidden_state_layer_ids": [2, 3, 4], "norm_before_residual": False}
    block_config = {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "num_hidden_layers": 1,
        "block_size": 4,
    }
    inner = {"mask_token_id": 3, "target_layer_ids": [-1, 0, 1], "projector_type": "dspark", "markov_rank": 4}
    config = {**SIZES, **block_config, "dflash_config": inner}
    random, chain, whole = eagle(target), eagle(target), block(target)
    fit(chain, seen)
    fit(whole, seen)
    return {
        "random": write(root / "random", speculators("eagle3", **ids), brought(random, "embed_tokens.")),
        "chain": write(root / "chain", speculators("eagle3", **ids), brought(chain, "embed_tokens.")),
        "whole": write(root / "whole", config, brought(whole, "embed_tokens.", "lm_head.")),
    }


def prompts(llm: paceline.LLM) -> list[list[int]]:
    """What a target without a tokenizer goes on with while a head is tried."""
    return adopting.made_up(sample_tokens(llm.target.decoder.model))


def brought(head: Any, *shared: str) -> dict[str, torch.Tensor]:
    """The weights of a head without what it shares."""
    return {name: weight for name, weight in head.state_dict().items() if not name.startswith(shared)}


@pytest.mark.parametrize(("kind", "name"), [("eagle", "chain"), ("block", "whole")])
def test_a_head_drafts_though_its_files_are_wrong(
    kind: str, name: str, llm: paceline.LLM, folders: dict[str, Path]
) -> None:
    spec, lengths = f"{kind}:path={folders[name]}", []
    for text in prompts(llm)[:3]:
        for options in ({"temperature": 0.0}, {"temperature": 0.7, "seed": 4}):
            how: Any = {"max_tokens": 40, "pacer": FixedPacer(), **options}
            alone = llm.generate(text, drafters="none", **how)
            drafted = llm.generate(text, drafters=[spec], **how)
            assert drafted.token_ids == alone.token_ids
            assert drafted.stats.drafters[kind].num_failures == 0
            lengths.append(drafted.stats.mean_acceptance_length)
    assert sum(lengths) / len(lengths) > 1.5
    trusted = llm.generate(prompts(llm)[0], drafters=[f"{spec},probe=false"], max_tokens=40, pacer=FixedPacer())
    assert trusted.stats.mean_acceptance_length < lengths[0]


def test_heads_of_two_kinds_draft_together(llm: paceline.LLM, folders: dict[str, Path]) -> None:
    specs = [f"{kind}:path={folders[name]}" for kind, name in (("eagle", "chain"), ("block", "whole"))]
    how: Any = {"max_tokens": 30, "pacer": FixedPacer()}
    texts = [*prompts(llm)[:3], prompts(llm)[0] * 12]
    alone = llm.generate(texts, drafters="none", **how)
    both = llm.generate(texts, drafters=specs, **how)
    assert [one.token_ids for one in both] == [one.token_ids for one in alone]
    assert {name for one in both for name, stats in one.stats.drafters.items() if stats.num_draft_tokens} == {
        "eagle",
        "block",
    }


def test_a_head_that_was_not_trained_is_refused(llm: paceline.LLM, folders: dict[str, Path]) -> None:
    kind = "eagle"
    with pytest.raises(paceline.ModelError, match=r"foresees .* of what this target says"):
        llm.generate([1, 2, 3], max_tokens=4, drafters=[f"{kind}:path={folders['random']}"])


def test_a_head_says_itself_of_which_kind_it_is(llm: paceline.LLM, folders: dict[str, Path]) -> None:
    kind = "medusa"
    with pytest.raises(paceline.ConfigError, match=r"is of the kind eagle; allowed: eagle:path=…"):
        llm.generate([1, 2, 3], max_tokens=4, drafters=[f"{kind}:path={folders['chain']}"])


def test_the_command_says_what_the_files_mean(
    llm: paceline.LLM, target: LlamaForCausalLM, folders: dict[str, Path], tmp_path: Path
) -> None:
    target.save_pretrained(tmp_path)
    done = CliRunner().invoke(app, ["head", str(folders["chain"]), "--model", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[0] == "eagle: speculators' EAGLE-3 and P-EAGLE"
    assert "It says that it was made for 'org/target'." in lines
    (taps,) = [line for line in done.output.splitlines() if "taps" in line]
    assert taps.index("2, 3, 4") < taps.index("1, 2, 3")
    assert any(line.startswith("Overlap with the model: ") for line in lines)
    refused = CliRunner().invoke(app, ["head", str(folders["random"]), "--model", str(tmp_path)])
    assert "It says that it was made for 'org/target'" in str(refused.exception)


@pytest.mark.parametrize(
    ("first", "second", "depth", "tokens"), [(0.5, 0.5, 2, 1.75), (1, 1, 7, 8), (0.4, 0.9, 1, 1.4)]
)
def test_what_chains_bring(first: float, second: float, depth: int, tokens: float) -> None:
    assert chain(first, second, depth) == pytest.approx(tokens)


class _Templated:
    """A tokenizer of one token a letter, with a template."""

    chat_template = "of a kind"

    def __call__(self, text: str, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool, return_dict: bool) -> Any:
        if len(messages[0]["content"]) > 70:
            raise ValueError("too long for this one")
        return {"input_ids": [1, 2, *(ord(letter) for letter in messages[0]["content"]), 3]}


def test_half_of_the_prompts_are_asked_as_in_a_chat_where_that_can_be() -> None:
    found = prompts_for(_Templated())
    is_asked = [ids[0] == 1 for ids in found]
    assert len(found) == 8
    assert any(is_asked)
    assert not any(is_asked[i] for i in (0, 1, 4, 5))
    assert prompts_for(None) == []
