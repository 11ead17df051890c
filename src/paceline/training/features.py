"""The target's hidden states and logits over packed sequences, computed when they are needed and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.training.packing import Packed


class Features:
    """Runs a target as transformers does, without gradients, and keeps what enters some of its layers.

    Raises:
        ModelError: its layers are not found, or a tap is not one of theirs.
    """

    def __init__(self, target: PreTrainedModel, taps: Sequence[int]) -> None:
        self.target, self.taps = target, tuple(taps)
        self._layers = layers_of(target)
        wrong = [tap for tap in taps if not 0 <= tap <= len(self._layers)]
        if wrong:
            raise ModelError(f"the target has no tap {wrong[0]}; allowed: 0 to {len(self._layers)}")

    @torch.no_grad()
    def __call__(self, batch: Packed) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Taps (N, S, H) in their order, and logits (N, S, V). Documents of a sequence do not see each other."""
        found: dict[int, torch.Tensor] = {}
        with ExitStack() as stack:
            for tap in self.taps:
                stack.callback(self._hook(tap, found).remove)
            out = self.target(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False)
        return [found[tap] for tap in self.taps], out.logits

    def _hook(self, tap: int, found: dict[int, torch.Tensor]) -> Any:
        def enters(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[tap] = (args[0] if args else kwargs["hidden_states"]).detach()

        def leaves(module: nn.Module, args: Any, out: Any) -> None:
            found[tap] = (out[0] if isinstance(out, tuple) else out).detach()

        if tap == len(self._layers):
            return self._layers[-1].register_forward_hook(leaves)
        return self._layers[tap].register_forward_pre_hook(enters, with_kwargs=True)


def layers_of(target: PreTrainedModel) -> nn.ModuleList:
    """The target's decoder layers.

    Raises:
        ModelError: there is no one list of them.
    """
    depth = target.config.get_text_config().num_hidden_layers
    found = [module for module in target.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if len(found) != 1:
        raise ModelError(f"the layers of {type(target).__name__} are not one list, so no head can be trained on them")
    return found[0]
