"""Damaged, lying and hostile folders: one error of our own that says which tensor, never a crash."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from paceline.errors import ModelError
from paceline.formats.checkpoints import open_checkpoint
from paceline.model.building import build

from . import packers
from .folders import LLAMA, read_linear, write_folder, write_model

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32}
WEIGHTS = {"num_bits": 4, "group_size": 32}
CT = {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": WEIGHTS}}}
BNB = {"quant_method": "bitsandbytes"}
X = packers.linear(np.random.default_rng(3), 16, 64, 4, 32, sym=True)
E4M3 = packers.e4m3(np.random.default_rng(3), 8, 64)
NESTED, _ = packers.bnb_4bit(np.random.default_rng(3), 8, 64, nested=True)
BLOCKS, SCALES, _ = packers.mxfp4(np.random.default_rng(3), 2, 3, 2)
GOOD: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {
    "gptq": (GPTQ, packers.gptq(X)),
    "awq": (AWQ, packers.awq(X)),
    "packed": (CT, packers.compressed(X, zeros=True, g_idx=True)),
    "bytes": (CT, packers.compressed(X, packed=False, zeros=True)),
    "fp8": ({"quant_method": "fp8"}, {"weight": E4M3, "weight_scale_inv": torch.ones(1, 1)}),
    "int8": (BNB, {"weight": torch.ones(8, 64, dtype=torch.int8), "SCB": torch.ones(8)}),
    "nf4": (BNB, NESTED),
    "mxfp4": ({"quant_method": "mxfp4"}, {"weight_blocks": BLOCKS, "weight_scales": SCALES}),
}


KEYS = {
    "gptq": ("group_size", "dynamic", "checkpoint_format"),
    "awq": ("version",),
    "compressed-tensors": ("ignore", "sparsity_config"),
    "fp8": ("weight_block_size",),
    "bitsandbytes": (),
    "mxfp4": (),
}


def read(folder: Path, settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """As a folder, which refuses what belongs to nothing, and as blocks."""
    write_folder(folder, LLAMA, settings, {f"m.{name}": t.contiguous() for name, t in tensors.items()})
    open_checkpoint(folder).describe()
    read_linear(folder, settings, tensors)


def is_refused(folder: Path, settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bool:
    try:
        read(folder, settings, tensors)
    except ModelError as error:
        return bool(str(error))
    return False


@pytest.mark.parametrize("name", GOOD)
def test_a_part_that_is_missing(tmp_path: Path, name: str) -> None:
    settings, tensors = GOOD[name]
    read(tmp_path, settings, tensors)
    for part in tensors.keys() - {"g_idx", "weight_g_idx", "weight_zero_point"}:
        with pytest.raises(ModelError, match=r"m\.\w+|m has quantised|no tensor is laid out so"):
            read(tmp_path, settings, {key: t for key, t in tensors.items() if key != part})


@pytest.mark.parametrize("name", GOOD)
def test_parts_of_other_shapes_and_dtypes(tmp_path: Path, name: str) -> None:
    """Each part in turn is made longer, shorter, flat, empty, and of other dtypes: refused, or read alike."""
    settings, tensors = GOOD[name]
    refused = 0
    for part, tensor in tensors.items():
        numbers = tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor
        changed = [numbers.repeat(*[2] * max(1, numbers.ndim)), numbers[..., :-1], numbers.reshape(-1), numbers[:0]]
        changed += [numbers.unsqueeze(0), numbers.reshape(-1)[:1].reshape(())]
        changed += [numbers.to(d) for d in (torch.int8, torch.int16, torch.int32, torch.float16, torch.bool)]
        for other in changed:
            if other.dtype == tensor.dtype and other.shape == tensor.shape:
                continue
            refused += is_refused(tmp_path, settings, tensors | {part: other})
    assert refused >= 7 * len(tensors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (GPTQ | {"bits": 5}, "bits is 5; allowed: 2, 3, 4, 8"),
        (GPTQ | {"bits": "4"}, "bits is '4'"),
        (GPTQ | {"checkpoint_format": "marlin"}, "'marlin'; allowed: gptq or gptq_v2"),
        (GPTQ | {"dynamic": {"(": {}}}, "is none"),
        (GPTQ | {"dynamic": ["x"]}, "allowed: an object"),
        (GPTQ | {"group_size": 0}, "group_size is 0"),
        (GPTQ | {"group_size": -2}, "group_size is -2"),
        (GPTQ | {"bits": 8}, r"qweight is I32 \[8, 16\]; allowed: I32 \[16, 16\]"),
        (AWQ | {"version": "gemv"}, "laid out otherwise"),
        (CT | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        (CT | {"config_groups": {}}, "no config_group"),
        (CT | {"config_groups": {"g": {"targets": ["re:("]}}}, "is no pattern"),
        (CT | {"config_groups": {"g": {"targets": ["Linear"], "weights": WEIGHTS | {"num_bits": 3}}}}, "num_bits is 3"),
        ({"quant_method": "torchao"}, "not torchao's"),
    ],
)
def test_settings_that_are_not_known(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    packer = {"gptq": packers.gptq, "awq": packers.awq}.get(settings["quant_method"], packers.compressed)
    with pytest.raises(ModelError, match=message):
        read(tmp_path, settings, packer(X))


def test_settings_of_any_type(tmp_path: Path) -> None:
    """Whatever stands where a number, a list or an object should: read, or refused in a sentence."""
    wrong = ["x", 0, -1, 1 << 70, 1.5, [], [1], {"x": 1}, True]
    for settings, tensors in GOOD.values():
        for key in {*settings, *KEYS[settings["quant_method"]]}:
            for value in wrong if key != "quant_method" else []:
                is_refused(tmp_path, settings | {key: value}, tensors)


def test_numbers_that_cannot_be(tmp_path: Path) -> None:
    tensors = packers.gptq(X)
    for number in (-1, 2, 1 << 30):
        g_idx = tensors["g_idx"].clone()
        g_idx[5] = number
        with pytest.raises(ModelError, match=r"g_idx has numbers from .* allowed: 0 to 1"):
            read(tmp_path, GPTQ, tensors | {"g_idx": g_idx})
    for scale in (float("nan"), float("inf")):
        with pytest.raises(ModelError, match=r"m\.weight: a scale is not a finite number"):
            read(tmp_path, GPTQ, tensors | {"scales": torch.full((2, 16), scale)})
    with pytest.raises(ModelError, match=r"m\.weight: a value is not a number"):
        read(tmp_path, {"quant_method": "fp8"}, {"weight": E4M3, "weight_scale_inv": torch.full((1, 1), 1e30)})
    blank = torch.full_like(SCALES, 255)
    with pytest.raises(ModelError, match=r"m\.weight: a scale is not"):
        read(tmp_path, {"quant_method": "mxfp4"}, {"weight_blocks": BLOCKS, "weight_scales": blank})
    for shape in ([1 << 40, 1 << 40], [-16, -64], [0, 64], [64, 16]):
        with pytest.raises(ModelError, match=r"m\.weight"):
            read(tmp_path, CT, packers.compressed(X) | {"weight_shape": torch.tensor(shape)})


@pytest.mark.parametrize("kind", ["Int4TilePackedTo4dTensor", "Int4OpaqueTensor", "NVFP4Tensor"])
def test_layouts_of_torchao_for_a_device_are_refused(tmp_path: Path, kind: str) -> None:
    metadata = {"m.weight": json.dumps({"_type": kind, "_data": {}}), "tensor_names": '["m.weight"]'}
    tensors = {"_weight_qdata": torch.zeros(4, 4, dtype=torch.int32)}
    with pytest.raises(ModelError, match=f"m.weight is torchao's {kind}, not laid out plainly; allowed: Int8Tensor"):
        read_linear(tmp_path, {"quant_method": "torchao"}, tensors, metadata)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    x = {
        (n, k): packers.linear(np.random.default_rng(3), n, k, 4, 32, sym=True)
        for n in (32, 96, 160)
        for k in (96, 160)
    }
    write_model(folder, LLAMA, GPTQ, lambda _, n, k: (packers.gptq(x[n, k]), x[n, k].values))
    return folder


def test_files_that_are_cut_off(llama: Path, tmp_path: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    for size in [0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(ModelError, match="no whole safetensors file"):
            open_checkpoint(tmp_path)


def test_files_that_are_no_checkpoints(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        open_checkpoint(tmp_path)
    for words in ("", "[]", "{", "[" * 100_000, '{"quantization_config": 3}'):
        (tmp_path / "config.json").write_text(words)
        with pytest.raises(ModelError, match=r"config\.json"):
            open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": {"quant_method": "hqq"}}))
    with pytest.raises(ModelError, match=r"quant_method is 'hqq'; allowed: auto-round, awq"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(ModelError, match=r"holds no \.safetensors file"):
        open_checkpoint(tmp_path)


def test_mutations_of_a_header(tmp_path: Path) -> None:
    """Bytes of the header changed at random: read, or one error of our own."""
    draw = random.Random(7)
    for settings, tensors in GOOD.values():
        save_file({f"m.{key}": t.contiguous() for key, t in tensors.items()}, tmp_path / "model.safetensors")
        whole = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": settings}))
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                data[draw.randrange(8 + struct.unpack("<Q", whole[:8])[0])] = draw.choice(b'0123456789"[]{},:FI')
            (tmp_path / "model.safetensors").write_bytes(data)
            with contextlib.suppress(ModelError):
                open_checkpoint(tmp_path).describe()


def test_a_configuration_asks_for_no_more_than_its_files_hold(llama: Path, tmp_path: Path) -> None:
    """Nothing is made as long, or as wide, as a damaged one says."""
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    stored = json.loads((llama / "config.json").read_text())
    for changed, words in (
        ({"num_hidden_layers": 1 << 40}, r"num_hidden_layers is 1099511627776; allowed: at most \d+, its tensors"),
        ({"intermediate_size": 1 << 31}, r"has \d+ weights; allowed: at most \d+, the bits of its files"),
        ({"head_dim": 1 << 40}, r"has \d+ weights; allowed: at most \d+, the bits of its files"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(stored | changed))
        with pytest.raises(ModelError, match=words):
            build(open_checkpoint(tmp_path))


def test_a_label_of_what_is_not_there(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    for method in ("bitsandbytes", "compressed-tensors", "fp8", "mxfp4"):
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": {"quant_method": method}}))
        with pytest.raises(ModelError, match=f"quant_method is '{method}', but no tensor is laid out so"):
            open_checkpoint(tmp_path)
