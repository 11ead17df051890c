"""What is loaded has every weight from its checkpoint, each in its place: anything else is refused by name."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import paceline
from exactness.models import ARCHITECTURES, EXPERTS, build
from models.families import tiny
from paceline.model.pretrained import read_model

CPU = torch.device("cpu")
KNOWN = {**ARCHITECTURES, **EXPERTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(architecture)`: its checkpoint as transformers saves it."""
    made: dict[str, Path] = {}

    def of(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp("model") / architecture
            build(architecture).save_pretrained(made[architecture])
        return made[architecture]

    return of


def changed(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a checkpoint with other tensors."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def read(folder: Path) -> transformers.PreTrainedModel:
    return read_model(folder, torch.float32, CPU)


every_architecture = pytest.mark.parametrize("architecture", KNOWN)


@every_architecture
def test_one_that_is_whole_is_read(folder, architecture: str):
    model, original = read(folder(architecture)), build(architecture)
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@every_architecture
def test_a_weight_that_is_missing_is_named(folder, architecture: str, tmp_path: Path):
    """Any two. An expert's may be named by the stack that it belongs to."""
    source = folder(architecture)
    with safe_open(source / "model.safetensors", "pt") as tensors:
        names = sorted(tensors.keys())
    for index, name in enumerate(random.Random(architecture).sample(names, 2)):
        copy = changed(source, tmp_path / str(index), lambda tensors, name=name: tensors.pop(name) is None)
        with pytest.raises(
            paceline.ModelError, match=r"are not in the checkpoint|do not make up|have other shapes"
        ) as refusal:
            read(copy)
        assert ".".join(name.split(".")[:3]) in str(refusal.value)


@every_architecture
def test_a_weight_of_another_name_is_named(folder, architecture: str, tmp_path: Path):
    """It is missing under its own name, and one too many under the other."""

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if ".1." in name and name.endswith(".weight"))
        tensors[name.replace(".weight", ".waight")] = tensors.pop(name)

    with pytest.raises(paceline.ModelError, match=r"\.[01]\.\w+"):
        read(changed(folder(architecture), tmp_path / "copy", rename))


@every_architecture
def test_a_weight_of_another_shape_is_named(folder, architecture: str, tmp_path: Path):
    def cut(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if "norm" in name or ".ln_" in name)
        tensors[name] = tensors[name][:-1].clone()

    with pytest.raises(paceline.ModelError, match=r"have other shapes than .* needed"):
        read(changed(folder(architecture), tmp_path / "copy", cut))


@pytest.mark.parametrize("architecture", ["gpt-neox", "gpt2", "llama", "mixtral", "phi3"])
@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Mixtral"])
def test_one_that_is_loaded_as_another_is_refused(folder, architecture: str, kind: str, tmp_path: Path):
    own = KNOWN[architecture][0]
    if own == kind or (own, kind) == ("Mistral", "Llama"):
        pytest.skip("that is what it is, weight for weight")
    copy = tmp_path / "copy"
    shutil.copytree(folder(architecture), copy)
    other = {"Llama": "llama", "GPT2": "gpt2", "Mixtral": "mixtral"}[kind]
    shutil.copy(folder(other) / "config.json", copy)
    with pytest.raises(paceline.ModelError):
        read(copy)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.2.mlp.up_proj.weight",
        "model.norm.bias",
    ],
)
def test_a_piece_of_a_layer_that_has_no_place_is_named(folder, name: str, tmp_path: Path):
    copy = changed(folder("llama"), tmp_path / "copy", lambda tensors: tensors.update({name: torch.ones(64)}))
    with pytest.raises(paceline.ModelError, match=f"have no place for: {name}"):
        read(copy)


@pytest.mark.parametrize(
    "name",
    [
        "visual.blocks.0.attn.qkv.weight",
        "mtp.layers.0.norm.weight",
        "score.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ],
)
def test_what_belongs_to_another_part_is_left_out(folder, name: str, tmp_path: Path):
    read(changed(folder("llama"), tmp_path / "copy", lambda tensors: tensors.update({name: torch.ones(16)})))


def test_a_tied_head_is_not_missing(tmp_path: Path):
    model = tiny("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as tensors:
        assert "lm_head.weight" not in list(tensors.keys())
    assert torch.equal(read(tmp_path).lm_head.weight, model.lm_head.weight)


def test_a_classifier_has_no_head_to_decode_by(tmp_path: Path):
    model = tiny("llama", tie_word_embeddings=True)
    transformers.LlamaForSequenceClassification(model.config).save_pretrained(tmp_path)
    with pytest.raises(paceline.ModelError, match="LlamaForSequenceClassification has no language-model head"):
        read(tmp_path)


def test_an_encoder_decoder_is_not_taken_for_its_decoder(tmp_path: Path):
    config = transformers.AutoConfig.for_model(
        "marian",
        vocab_size=131,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        pad_token_id=0,
    )
    transformers.MarianMTModel(config).save_pretrained(tmp_path)
    assert type(read(tmp_path)) is transformers.MarianMTModel


def test_pickles_are_refused_with_the_safe_way_out(folder, tmp_path: Path):
    shutil.copy(folder("llama") / "config.json", tmp_path)
    torch.save(load_file(folder("llama") / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(paceline.ModelError, match=r"pickles .*use_safetensors=False and save_pretrained"):
        read(tmp_path)


def test_shards_with_an_index_are_read_and_a_lost_one_is_refused(tmp_path: Path):
    model = tiny("llama")
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    for name, tensor in read(tmp_path).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    shards[1].unlink()
    with pytest.raises(paceline.ModelError, match="cannot load the model"):
        read(tmp_path)


def test_half_precision_is_read_as_it_is_and_decoded(tmp_path: Path):
    tiny("llama", dtype=torch.float16).save_pretrained(tmp_path)
    with paceline.load(str(tmp_path), cache_tokens=1024) as llm:
        assert llm.info.numerics["dtype"] == "float16"
        plain = llm.generate([3, 77, 12], max_tokens=12, temperature=0.0, drafters="none").token_ids
        assert llm.generate([3, 77, 12], max_tokens=12, temperature=0.0).token_ids == plain


@pytest.mark.parametrize("limit", [9, 18, 41])
def test_a_short_context_is_probed_within_it(limit: int):
    """GPT-2 has a table of positions: whoever reads beyond its end is found out."""
    model = tiny("gpt2", max_position_embeddings=limit)
    with paceline.load(model, cache_tokens=1024) as llm:
        assert llm.info.max_length == limit
        assert len(llm.generate([3, 77, 12], max_tokens=limit - 3, temperature=0.0).token_ids) == limit - 3


def test_several_end_tokens_and_a_vocabulary_padded_beyond_the_tokenizer(tmp_path: Path):
    model = tiny("llama")
    model.generation_config.eos_token_id = [5, 7]
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(_words(101)))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with paceline.load(str(tmp_path), cache_tokens=1024) as llm:
        assert llm.info.vocab_size == 131
        out = llm.generate("w3 w4", max_tokens=60, temperature=1.0, seed=0, logit_bias={7: 5.0})
        assert out.finish_reason == "stop"
        assert out.token_ids[-1] in (5, 7)


def _words(count: int) -> dict[str, object]:
    vocab = {f"w{i}": i for i in range(count)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    }


def test_without_a_tokenizer_prompts_are_token_ids(tmp_path: Path):
    tiny("llama").save_pretrained(tmp_path)
    with paceline.load(str(tmp_path), cache_tokens=1024) as llm:
        assert len(llm.generate([3, 77, 12], max_tokens=4).token_ids) == 4
        with pytest.raises(paceline.RequestError, match="tokenizer"):
            llm.generate("a text", max_tokens=4)
