"""Linears of GPTQ and AWQ, which call their tensors the same. Shapes tell them apart, whatever the label says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from paceline.errors import ModelError
from paceline.formats.checkpoints import awq, gptq
from paceline.formats.checkpoints.bits import WIDTHS
from paceline.formats.checkpoints.found import FLOATS, Found, Settings, Source, matrix_shape, number, parts_of, table
from paceline.formats.checkpoints.tensors import Tensors

_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_ALIASES = {"w_bit": "bits", "q_group_size": "group_size"}
_DEFAULTS: dict[str, Any] = {"bits": 4, "group_size": 128, "sym": True, "checkpoint_format": "gptq"}


def find_gptq(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """GPTQ's linears, and those of what packs like it."""
    settings = _normal(settings)
    gptq.check(settings)
    return _find(tensors, settings)


def find_awq(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """AWQ's linears."""
    awq.check(settings)
    return _find(tensors, _normal(settings) | {"checkpoint_format": "gptq"})


def find_auto_round(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """AutoRound's linears, packed in one of the two ways."""
    extra = table(settings, "extra_config")
    overrides = {f"{re.escape(str(name))}$": values for name, values in extra.items()}
    packing = str(settings.get("packing_format", "gptq"))
    subtracts = "gptq" in packing and "gptqmodel" not in packing
    label = "gptq" if subtracts else "gptq_v2"
    return _find(tensors, _normal(settings) | {"checkpoint_format": label, "dynamic": overrides})


def _normal(settings: Settings) -> dict[str, Any]:
    """Settings under one set of names, complete."""
    known = {_ALIASES.get(key, key): value for key, value in settings.items() if value is not None}
    return _DEFAULTS | known


def _find(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    for module in tensors.with_suffix("qweight"):
        read = partial(_read, tensors, module, _of_module(settings, module))
        yield Found(f"{module}.weight", parts_of(tensors, module, _PARTS), read)


def _of_module(settings: Settings, module: str) -> Settings:
    """Settings of a linear: the first of the `dynamic` patterns that matches overrides the rest."""
    for pattern, values in table(settings, "dynamic").items():
        try:
            is_meant = re.match(pattern.removeprefix("+:"), module)
        except re.error as error:
            raise ModelError(f"the quantisation's dynamic pattern {pattern!r} is none: {error}") from error
        if is_meant and isinstance(values, dict):
            return {**settings, **values}
    return settings


def _read(tensors: Tensors, module: str, settings: Settings) -> Source:
    bits = number(settings, "bits", 4, lambda n: n in WIDTHS, ", ".join(map(str, WIDTHS)))
    number(settings, "group_size", 128, lambda n: n == -1 or n > 0, "a positive number, or -1")
    label, layout = _layout(tensors, module, bits)
    return Source(f"{label} int{bits}", layout.groups(tensors, module, bits, settings))


def _layout(tensors: Tensors, module: str, bits: int) -> tuple[str, Any]:
    """GPTQ if the columns of the codes are those of the scales, AWQ if they are words of them."""
    codes = matrix_shape(tensors, f"{module}.qweight", ("I32",))
    scales = matrix_shape(tensors, f"{module}.scales", FLOATS)
    if codes[1] == scales[1]:
        return "GPTQ", gptq
    if codes[1] * 32 == scales[1] * bits:
        return "AWQ", awq
    per_word = 32 // bits
    raise ModelError(
        f"{module}: qweight is {list(codes)}, scales {list(scales)}; "
        f"allowed: (K/{per_word}, N) or (K, N/{per_word}), and (groups, N)"
    )
