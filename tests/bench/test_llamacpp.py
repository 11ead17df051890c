"""llama.cpp competes where it is installed, can run the model, and agrees with transformers; else it says why not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llamacpp_forward
import pytest
import step
import torch
from click.testing import Result
from llamacpp_forward import CannotCompeteError, LlamaCppForward, open_llamacpp
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
from typer.testing import CliRunner

from paceline.bench.forwards import TransformersForward
from paceline.bench.models import random_model
from paceline.errors import ConfigError

CONTEXT = [i * 7 % 256 for i in range(70)]


def run(*arguments: object) -> Result:
    """`benchmarks/step.py` in this process."""
    return CliRunner().invoke(step.app, [str(argument) for argument in arguments])


def tiny_model(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return random_model("tiny", dtype, torch.device("cpu"), scale=0.1)


def enter(model: PreTrainedModel, counts: tuple[int, ...] = (1, 3)) -> LlamaCppForward:
    return open_llamacpp(model, CONTEXT, TransformersForward(model, CONTEXT), counts)[0]


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages are there as far as a look can tell."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def test_absent_it_is_left_out_and_a_note_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    path = tmp_path / "step.json"
    result = run("--shape", "tiny", "--rows", "1", "--repeats", 1, "--json", path)
    assert result.exit_code == 0, result.output
    assert "llama.cpp ms" not in result.output
    assert 'llama.cpp does not compete: not installed (pip install "paceline[peers]")' in result.output
    found = json.loads(path.read_text())
    assert "not installed" in found["llamacpp"]["absent"]
    assert found["rows"][0]["others"] == {}


def test_what_it_was_built_with_is_said() -> None:
    about = {"version": "0.0", "threads": 1, "cache": "float16", "largest_error": 0.01, "system": "CPU"}
    said = step.describe(about | {"has_openmp": False})
    assert "llama-cpp-python 0.0, 1 threads, float16 cache" in said
    assert "built without OpenMP" in said
    assert "OpenMP" not in step.describe(about | {"has_openmp": True})


def test_other_architectures_are_left_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=256)).eval()
    with pytest.raises(CannotCompeteError, match="GPT2LMHeadModel is none of LlamaForCausalLM"):
        enter(model)


def test_a_build_that_does_not_load_is_no_end_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # whose import then fails
    with pytest.raises(CannotCompeteError, match="cannot be imported"):
        enter(tiny_model())


class Disagreeing:
    """A fake `LlamaCppForward` whose logits are off."""

    error = 0.5
    is_closed = False

    def __init__(self, model: PreTrainedModel, context: list[int]) -> None:
        pass

    def disagreement(self, theirs: TransformersForward, rows: int) -> float:
        return self.error

    def about(self) -> dict[str, object]:
        return {"version": "0"}

    def close(self) -> None:
        type(self).is_closed = True


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_wrong_logits_do_not_compete(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    pretend(monkeypatch)
    fake = type("Fake", (Disagreeing,), {"error": error})
    monkeypatch.setattr(llamacpp_forward, "_written_for", fake)
    with pytest.raises(CannotCompeteError, match="its logits differ from transformers' by"):
        enter(tiny_model())
    assert fake.is_closed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["tiny", "paceline-tiny"])
def test_its_logits_are_those_of_transformers(dtype: torch.dtype, shape: str) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    model = tiny_model(dtype) if shape == "tiny" else bundled(dtype)
    forward = enter(model)
    theirs = TransformersForward(model, CONTEXT)
    errors = [forward.disagreement(theirs, rows) for rows in (1, 3, 3, 1)]
    forward.close()
    assert max(errors) < (1e-5 if dtype == torch.float32 else 3e-2)
    assert errors[1] == errors[2]  # the same cache each time
    assert errors[0] == errors[3]


def bundled(dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from paceline.bundled import bundled_path

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(bundled_path("paceline-tiny"), dtype=dtype)
    return model.eval()


def test_a_rotary_embedding_without_the_permutation_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    monkeypatch.setattr("paceline.formats.gguf.writer.permuted", lambda weight, heads: weight)
    with pytest.raises(CannotCompeteError, match="its logits differ"):
        enter(tiny_model())


def test_quantised_files_need_llama_cpp_and_a_known_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("--shape", "tiny", "--quantize", "int3")
    assert isinstance(found.exception, ConfigError)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert isinstance(run("--shape", "tiny", "--quantize", "int4").exception, CannotCompeteError)


def test_both_read_the_same_quantised_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    path = tmp_path / "step.json"
    result = run("--shape", "tiny", "--quantize", "int4", "--rows", "1,3", "--repeats", 2, "--json", path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert {mix: error < 3e-2 for mix, error in found["disagreement"].items()} == {"Q4_K_M": True, "Q4_0": True}
    assert len(found["seconds"]["llama.cpp Q4_0 3"]) == 2


def test_it_takes_turns_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    path = tmp_path / "step.json"
    result = run("--shape", "tiny", "--rows", "1,3", "--repeats", 2, "--json", path)
    assert result.exit_code == 0, result.output
    assert "llama.cpp ms" in result.output
    found = json.loads(path.read_text())
    assert all(len(row["others"]["llama.cpp"]) == 2 for row in found["rows"])
    assert found["llamacpp"]["largest_error"] < 8e-2
