"""A proof that was kept saves the probe, is for one model on one machine, and is checked by a forward each time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.utils.hooks import RemovableHandle

from exactness.models import ARCHITECTURES, build
from paceline.model import agreement, inspect, numerics, proof, proving
from paceline.model.decoder import Decoder
from paceline.model.forward import ROW_COUNTS, ModuleForward, RecordedForward
from paceline.model.hf import HFTarget
from paceline.model.loading import load_target
from paceline.model.pretrained import read_model
from paceline.model.proof import proof_file, read_proof
from paceline.model.rows import TreeWork
from paceline.model.shallow import num_different_layers, shortened
from paceline.native.library import library
from paceline.native.scaling import ProgramFamily

CPU = torch.device("cpu")
native = pytest.mark.skipif(library() is None or not library().is_preferred, reason="no native kernels, or not in use")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "proofs"


@pytest.fixture(params=["native", "pytorch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native" and (library() is None or not library().is_preferred):
        pytest.skip("no native kernels, or not in use")
    if request.param == "pytorch":
        monkeypatch.setattr(numerics, "library", lambda: None)
        monkeypatch.setattr("paceline.model.forward.library", lambda: None)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    build("llama-odd").save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often a load probes, runs the model as it is, and runs forwards over rows."""
    counts = {"anatomy": 0, "eager": 0, "probe": 0, "forward": 0}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    with (
        patch.object(inspect, "anatomy", counting("anatomy", inspect.anatomy)),
        patch.object(agreement, "eager_logits", counting("eager", agreement.eager_logits)),
        patch.object(proving, "proven_row_counts", counting("probe", proving.proven_row_counts)),
        patch.object(Decoder, "forward", counting("forward", Decoder.forward)),
    ):
        yield counts


def load(source: Any, **options: Any) -> tuple[HFTarget, dict[str, int]]:
    with counted() as counts:
        return load_target(source, cache_tokens=1024, **options)[0], counts


def was_proved(counts: dict[str, int]) -> bool:
    assert (counts["anatomy"], counts["eager"], counts["probe"]) in ((0, 0, 0), (1, 1, 1))
    return counts["probe"] == 1


def bits(target: HFTarget) -> bytes:
    decoder = target.decoder
    sequence = decoder.pool.reserve(200)
    assert sequence is not None
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, 200, 90)]
    decoder.prefill(sequence, tokens)
    logits = decoder.forward([TreeWork(sequence, tokens[:11], range(-1, 10))])
    decoder.pool.release(sequence)
    return logits.tobytes()


def test_a_kept_proof_takes_one_forward_and_changes_no_bit(folder: str, kernels: str) -> None:
    first, counts = load(folder)
    assert was_proved(counts)
    again, counts = load(folder)
    assert not was_proved(counts)
    assert counts["forward"] == 1
    assert again.numerics() == first.numerics()
    assert (again.vocab_size, again.max_length) == (first.vocab_size, first.max_length)
    assert bits(again) == bits(first)


def test_what_a_caller_made_is_proved_each_time(cache: Path) -> None:
    model = build("llama")
    for _ in range(2):
        assert was_proved(load(model)[1])
    assert not cache.exists()


def test_custom_code_is_proved_each_time(folder: str, cache: Path) -> None:
    for _ in range(2):
        assert was_proved(load(folder, trust_remote_code=True)[1])
    assert not cache.exists()


class Foreign(torch.nn.Linear):
    """Not of the libraries."""


def _hook(model: torch.nn.Module) -> RemovableHandle:
    return model.get_submodule("lm_head").register_forward_hook(lambda *what: None)


def _own_forward(model: torch.nn.Module) -> None:
    model.get_submodule("lm_head").forward = lambda x: x  # type: ignore[method-assign]


def _own_class(model: torch.nn.Module) -> None:
    model.get_submodule("lm_head").__class__ = Foreign


@pytest.mark.parametrize("change", [_hook, _own_forward, _own_class])
def test_a_model_that_is_not_what_its_class_says_has_no_file(folder: str, change: Callable[[Any], Any]) -> None:
    model = read_model(folder, "auto", CPU)
    assert proof_file(model) is not None
    change(model)
    assert proof_file(model) is None


def test_another_model_setting_or_release_has_another_file(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [proof_file(read_model(folder, "auto", CPU))]
    assert proof_file(read_model(folder, "auto", CPU)) == files[0]
    files.append(proof_file(read_model(folder, torch.bfloat16, CPU)))
    changed = read_model(folder, "auto", CPU)
    with torch.no_grad():
        changed.get_submodule("lm_head").weight.mul_(1.5)
    files.append(proof_file(changed))
    changed = read_model(folder, "auto", CPU)
    changed.config.rms_norm_eps *= 2
    files.append(proof_file(changed))
    for name, value in (("ONEDNN_MAX_CPU_ISA", "AVX2"), ("MKL_CBWR", "AVX2")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            files.append(proof_file(read_model(folder, "auto", CPU)))
    kernels = [("_compiled", list)] if library() is not None else []
    for name, value in [("__version__", "0"), ("_processor", lambda: "?"), *kernels]:
        with monkeypatch.context() as context:
            context.setattr(proof, name, value)
            files.append(proof_file(read_model(folder, "auto", CPU)))
    with monkeypatch.context() as context:
        context.setattr(torch, "get_num_threads", lambda: 77)
        files.append(proof_file(read_model(folder, "auto", CPU)))
    with monkeypatch.context() as context:  # as libraries that speed up models do
        kind = type(read_model(folder, "auto", CPU).get_submodule("lm_head"))
        context.setattr(kind, "forward", lambda self, x: torch.nn.functional.linear(x, self.weight) * 1)
        files.append(proof_file(read_model(folder, "auto", CPU)))
    assert None not in files
    assert len(set(files)) == len(files)


def _damage(text: str) -> Iterator[str]:
    says = json.loads(text)
    yield ""
    yield text[: len(text) // 2]
    yield "[]"
    yield json.dumps({"proof": says["proof"]})
    says["proof"]["row_counts"] = [1, 2, 16, 77]
    yield json.dumps(says)
    del says["proof"]["parts"]["layers"]
    says["seal"] = proof.cache_key(says["proof"])
    yield json.dumps(says)


def test_a_proof_that_is_not_whole_is_made_again(folder: str, cache: Path) -> None:
    load(folder)
    [file] = cache.iterdir()
    for damaged in _damage(file.read_text()):
        file.write_text(damaged)
        assert read_proof(file) is None
        assert was_proved(load(folder)[1])
        assert not was_proved(load(folder)[1])


def test_another_models_proof_in_its_place_is_found_out_by_the_forward(
    folder: str, cache: Path, tmp_path: Path
) -> None:
    load(folder)
    [file] = cache.iterdir()
    torch.manual_seed(5)
    build("llama-odd", attention_bias=True).save_pretrained(tmp_path / "other")
    load(str(tmp_path / "other"))
    [other] = set(cache.iterdir()) - {file}
    shutil.copy(other, file)
    target, counts = load(folder)
    assert was_proved(counts)
    assert counts["forward"] > 1
    assert not was_proved(load(folder)[1])
    assert bits(target) == bits(load(folder)[0])


def test_a_cache_that_cannot_be_written_is_none(folder: str, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("")
    for _ in range(2):
        assert was_proved(load(folder)[1])


@contextmanager
def faulty_rows(kind: type, is_faulty: Callable[[int], bool]) -> Iterator[None]:
    """Kernels whose last bits depend on the number of rows in a forward."""
    right = kind.logits  # type: ignore[attr-defined]

    def logits(self: Any, work: Any, num_rows: int) -> torch.Tensor:
        found = right(self, work, num_rows)
        return found * 1.0001 if is_faulty(num_rows) else found  # type: ignore[no-any-return]

    with patch.object(kind, "logits", logits):
        yield


def test_bits_that_depend_on_the_row_count_are_found_at_the_first_load(folder: str, kernels: str) -> None:
    kind = RecordedForward if kernels == "native" else ModuleForward
    for faulty in ({1}, {8}, {32}, {1, 2, 4}):
        with faulty_rows(kind, faulty.__contains__):
            target, counts = load(folder)
        assert counts["probe"] >= 1
        if isinstance(target.decoder._forward, kind):
            assert not faulty & set(target.row_counts)
        shutil.rmtree(Path(proof_file(read_model(folder, "auto", CPU)) or "").parent)


def test_bits_that_have_come_to_depend_on_the_row_count_are_found_by_the_one_forward(folder: str, kernels: str) -> None:
    load(folder)
    kind = RecordedForward if kernels == "native" else ModuleForward
    with faulty_rows(kind, lambda count: count >= 7):
        target, counts = load(folder)
    assert counts["probe"] >= 1
    if isinstance(target.decoder._forward, kind):
        assert len({1, 16} & set(target.row_counts)) <= 1


@native
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_first_layers_show_every_kind_and_are_probed_in_place_of_all(architecture: str) -> None:
    model = build(architecture)
    parts = inspect.anatomy(model)
    shown = num_different_layers(model, parts)
    kinds = list(zip(parts.layers, parts.windows, strict=True))
    assert set(kinds[:shown]) == set(kinds)
    before = [id(module) for module in model.modules()]
    with shortened(model, shown, len(parts.layers)):
        assert len([m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == shown]) >= 1
    assert [id(module) for module in model.modules()] == before


@native
def test_the_whole_model_is_compared_at_two_row_counts_whatever_the_probe_saw(folder: str) -> None:
    depth = len(load(folder)[0].decoder.pool.layers)
    right = RecordedForward.logits
    shutil.rmtree(Path(proof_file(read_model(folder, "auto", CPU)) or "").parent)

    def logits(self: RecordedForward, work: Any, num_rows: int) -> torch.Tensor:
        found = right(self, work, num_rows)
        return found * 1.0001 if num_rows > 1 and len(self._pool.layers) == depth else found

    with patch.object(RecordedForward, "logits", logits):
        assert not isinstance(load(folder)[0].decoder._forward, RecordedForward)


@native
def test_a_loaded_model_has_a_program_for_every_row_count(folder: str) -> None:
    """Its first requests make none."""
    decoder = load(folder)[0].decoder
    with patch.object(RecordedForward, "_record", None), patch.object(ProgramFamily, "program", None):
        assert all(decoder._forward._program(count).result.shape[0] == count for count in ROW_COUNTS)
