"""The bundled model at the cost of a larger one: the same text, at a size that people run."""

from __future__ import annotations

from typing import Any

from paceline.bundled import DEFAULT_TARGET
from paceline.console import ProgressBar
from paceline.errors import ConfigError

_MEMORY = 3  # times the weights: the grown ones, the copy that kernels read, and caches


def grow(size: str, dtype: str, bar: ProgressBar) -> tuple[Any, int]:
    """The bundled model at another size, and positions of cache for two texts of its whole context.

    Raises:
        ConfigError: a size that there is not, or that there is no memory for.
    """
    from paceline.bundled.grow import SIZES, inflate, inflated_config, num_parameters
    from paceline.model.hf import SCRATCH
    from paceline.model.loading import parse_device, parse_dtype
    from paceline.model.pretrained import read_model

    if size not in SIZES:
        raise ConfigError(f"--size is {size!r}; allowed: {', '.join(SIZES)}")
    small: Any = read_model(DEFAULT_TARGET, parse_dtype(dtype), parse_device("auto"))
    config = inflated_config(small.config, SIZES[size])
    count = num_parameters(config)
    _check_memory(size, count * small.dtype.itemsize, small.device)
    bar.update(0.0, f"growing {DEFAULT_TARGET} to {count / 1e6:.0f} M parameters")
    return inflate(small, SIZES[size]), 2 * (config.max_position_embeddings + SCRATCH)


def _check_memory(size: str, num_bytes: int, device: Any) -> None:
    from paceline.model.numerics import free_memory

    wanted, free = _MEMORY * num_bytes, free_memory(device)
    if wanted > free:
        raise ConfigError(
            f"--size is {size}, which needs {wanted / 1e9:.1f} GB; {free / 1e9:.1f} GB are free here; "
            f"allowed: a smaller --size, or --dtype bfloat16"
        )
