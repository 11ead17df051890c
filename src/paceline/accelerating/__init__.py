"""`accelerate`: a loaded model of transformers keeps its `generate`, which then decodes through Paceline.

transformers itself reads arguments and settings, pads and expands, and makes logits processors and stopping criteria.
In place of its loop stands a decoding method of ours (its own mechanism, `custom_generate`), or, where ours cannot do
what is asked, its own again.
"""

from paceline.accelerating.binding import accelerate, generate, unaccelerate
from paceline.accelerating.handing_over import HandedOverWarning

__all__ = ["HandedOverWarning", "accelerate", "generate", "unaccelerate"]
