"""What a block head is: its sizes, what it reads of its target, and by which conventions it was trained."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

from paceline.errors import ModelError


@dataclass(frozen=True)
class BlockConfig:
    """A head that drafts a block of tokens in one forward (DFlash, arXiv 2602.06036; DSpark, arXiv 2607.05147).

    `layers` is the configuration of its own decoder layers, of transformers' Qwen3 or Llama. Its `vocab_size` is the
    target's. *Tap j* is the residual stream that enters the target's layer j; of L layers, tap L leaves the last one
    and tap L + 1 is behind the final norm.
    """

    layers: PreTrainedConfig
    taps: tuple[int, ...]  # of the target, in the order in which `fc` takes them
    target_hidden_size: int
    block_size: int  # inputs of a block: the pending token, and masks
    mask_token_id: int  # whose embedding stands in every slot behind the pending token's
    predicts_from_anchor: bool = True  # slot j predicts the token behind its own; False: in place of its own mask
    is_causal: bool = False  # a slot sees those before it alone; False: the whole block
    transition: str = "vanilla"  # how a slot's logits depend on the token before it; see transitions.py
    rank: int = 0  # of the transition; 0 is none
    draft_vocab_size: int = 0  # tokens that the head knows, where they are fewer than the target's; 0: all

    def __post_init__(self) -> None:
        """ModelError where the sizes make no head."""
        if not 2 - self.predicts_from_anchor <= self.block_size <= 64:
            raise ModelError(
                f"block_size is {self.block_size}; allowed: 1 to 64, from 2 where the anchor predicts nothing"
            )
        if not self.taps or min(self.taps) < 0:
            raise ModelError(f"the taps of the head are {list(self.taps)}; allowed: one or more, from 0 on")
        if not 0 <= self.mask_token_id < self.vocab_size:
            raise ModelError(f"mask_token_id is {self.mask_token_id}; allowed: a token below {self.vocab_size}")

    @property
    def vocab_size(self) -> int:
        """Tokens of the target."""
        return int(self.layers.vocab_size)

    @property
    def num_logits(self) -> int:
        """Tokens that the head gives logits for."""
        return self.draft_vocab_size or self.vocab_size

    @property
    def first_slot(self) -> int:
        """The first slot that predicts."""
        return 0 if self.predicts_from_anchor else 1

    @property
    def num_proposals(self) -> int:
        """Tokens that a block proposes, one behind the other."""
        return self.block_size - self.first_slot
