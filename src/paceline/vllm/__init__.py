"""Paceline's drafters and pacing inside vLLM, by vLLM's own extension points; see docs/vllm.md.

`--speculative-config '{"method": "custom_class", "model": "paceline.vllm.Drafter", "num_speculative_tokens": 16}'`
"""

from paceline.vllm.drafter import Drafter
from paceline.vllm.middleware import Middleware

__all__ = ["Drafter", "Middleware"]
