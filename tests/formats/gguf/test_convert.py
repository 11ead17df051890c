"""`paceline convert` as a user runs it, and what is told of a file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from formats.gguf.files import Entry, tiny_llama
from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.cli import app
from paceline.errors import ConfigError, ModelError
from paceline.formats.blocks import BlockRows
from paceline.formats.gguf import open_gguf
from paceline.formats.gguf.describe import describe

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with the bundled tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        eos_token_id=0,
    )
    path = tmp_path_factory.mktemp("checkpoint")
    LlamaForCausalLM(config).bfloat16().save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(str(bundled_path(DEFAULT_TARGET))) / name, path)
    return path


def run(*arguments: object) -> str:
    """The output of a command that succeeds; its error is raised."""
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize("kind", [None, "F32", "Q8_0"])
def test_a_checkpoint_becomes_a_file(kind: str | None, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    output = run(folder, out, *([] if kind is None else ["--type", kind]))
    assert f"{out}: " in output.replace("\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    found = open_gguf(out)
    by_name = {weight.name: weight for weight in found.weights()}
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    up = by_name["model.layers.0.mlp.up_proj.weight"]
    assert up.stored_as == (kind or "BF16")
    if kind == "Q8_0":
        assert isinstance(up.value, BlockRows)
    else:
        assert all(torch.equal(weight.value.float(), state[name].float()) for name, weight in by_name.items())
    text = "Once upon a time, 42 things\n"
    assert found.tokenizer()(text)["input_ids"] == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


def test_a_file_that_is_there_is_kept_unless_forced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    out.write_text("dear to me")
    with pytest.raises(ConfigError, match=r"model.gguf' is there; allowed: another name, or --force to write over it"):
        run(folder, out)
    assert out.read_text() == "dear to me"
    run(folder, out, "--force")
    assert open_gguf(out).architecture == "llama"


def test_what_fails_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.gguf"
    monkeypatch.setattr("paceline.formats.gguf.writer.encoded", lambda weight, kind: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--type", "Q9"), "--type is 'Q9'; allowed: F32, F16, BF16, Q8_0"),
        (("--type", "q8_0"), "--type is 'q8_0'; allowed: F32"),
    ],
)
def test_types_are_checked_before_anything_is_loaded(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        run("nowhere", tmp_path / "model.gguf", *arguments)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "none" / "model.gguf"):
        with pytest.raises(ConfigError, match=r"cannot write .*; allowed: a file in a folder that is there"):
            run("nowhere", out)
    with pytest.raises(ModelError, match="no model in the folder"):
        run(tmp_path, tmp_path / "model.gguf")


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r'gguf is not installed; allowed: pip install "paceline\[gguf\]" first'):
        run(DEFAULT_TARGET, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_what_is_told_of_a_file(tmp_path: Path) -> None:
    file = tiny_llama()
    for name, kind, num_bytes in (("a", 12, 144), ("b", 11, 110), ("c", 7, 8 * 24), ("d", 23, 136)):
        file.entries.append(Entry(f"{name}.weight", (256, 2 if name == "a" else 1), kind, bytes(2 * num_bytes)))
    kinds = {kind.name: kind for kind in describe(open_gguf(file.write(tmp_path / "model.gguf")).reader)}
    assert list(kinds)[:2] == ["F32", "Q4_K"]  # by bytes
    assert kinds["F32"].tensors == 11
    assert (kinds["Q4_K"].weights, kinds["Q4_K"].num_bytes, kinds["Q4_K"].bits_per_weight) == (512, 288, 4.5)
    told = {name: (kind.becomes, kind.is_exact) for name, kind in kinds.items()}
    assert told == {
        "F32": ("F32", True),
        "Q4_K": ("Q4_K", True),
        "Q3_K": ("Q6_K", True),
        "Q5_1": ("Q8_0", False),
        "IQ4_XS": ("Q8_F or Q8_0", True),
    }


def test_nothing_of_it_is_imported_with_the_package() -> None:
    code = "import sys, paceline, paceline.cli; print([m for m in sys.modules if m.startswith('paceline.formats')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout.strip()) == []


def test_files_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(folder, tmp_path / name, "--type", "Q4_0")
    one, two = (np.fromfile(tmp_path / name, np.uint8) for name in ("one", "two"))
    assert np.array_equal(one, two)
