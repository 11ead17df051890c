"""transformers' own `generate` is the reference: the same tokens, up to ties that it tells of itself."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import PreTrainedModel

import paceline

TOLD = {"return_dict_in_generate": True, "output_scores": True}
TIE = 2e-4  # of scores in float32: what two ways of rounding may part at


def own(model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
    """What `generate` of the model's class gives."""
    return type(model).generate(model, *args, **kwargs)


def assert_same(model: PreTrainedModel, inputs: dict[str, Any], **kwargs: Any) -> torch.Tensor:
    """See that an accelerated model decodes by Paceline what transformers does, and give the sequences."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", paceline.HandedOverWarning)
        found: torch.Tensor = model.generate(**inputs, **kwargs)
    assert_up_to_ties(found, own(model, **{**inputs, **kwargs, **TOLD}))
    return found


def assert_up_to_ties(found: torch.Tensor, wanted: Any) -> None:
    """See that sequences are those of a `ModelOutput` with scores, but where two of its scores are as good as equal."""
    if torch.equal(found, wanted.sequences):
        return
    assert found.shape[0] == wanted.sequences.shape[0]
    start = wanted.sequences.shape[1] - len(wanted.scores)
    for row, (ours, theirs) in enumerate(zip(found, wanted.sequences, strict=True)):
        width = min(len(ours), len(theirs))
        parts = (ours[:width] != theirs[:width]).nonzero()
        if not len(parts):
            assert len(ours) == len(theirs)
            continue
        place = int(parts[0])
        scores = wanted.scores[place - start][row]
        gap = float((scores[ours[place]] - scores[theirs[place]]).abs())
        assert gap <= TIE, f"row {row} parts at {place}: {int(ours[place])}, not {int(theirs[place])}, by {gap}"


def assert_handed_over(model: PreTrainedModel, inputs: dict[str, Any], match: str, **kwargs: Any) -> Any:
    """See that a call is left to transformers, in words, with its own result."""
    torch.manual_seed(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.generate(**inputs, **kwargs)
    told = [str(w.message) for w in caught if issubclass(w.category, paceline.HandedOverWarning)]
    assert len(told) == 1, told
    assert match in told[0]
    torch.manual_seed(3)
    wanted = own(model, **inputs, **kwargs)
    assert torch.equal(getattr(found, "sequences", found), getattr(wanted, "sequences", wanted))
    return found
