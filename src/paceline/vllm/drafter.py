"""What vLLM calls after each of its steps: drafts for the next one, as many as pay, none included.

vLLM schedules, runs the model, verifies and samples; it decides what is accepted. A step of its loop is one turn of
ours: what the last drafts came to is learnt, then the pacer asks the drafters. vLLM verifies chains, so each
request's proposals become the chain that should bring most tokens.
"""

from __future__ import annotations

import atexit
import logging
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.vllm.facts import facts_of
from paceline.vllm.mending import mend
from paceline.vllm.metrics import Metrics
from paceline.vllm.runner import check_version, find_runner
from paceline.vllm.settings import read_settings
from paceline.vllm.turn import Turns

_log = logging.getLogger("vllm.paceline")  # beneath vLLM's own, so that its handlers show it


class Drafter:
    """A proposer for vLLM's `custom_class`.

    Args:
        vllm_config: vLLM's.

    Raises:
        ConfigError: a release of vLLM that this was not made for, or settings that are not allowed.
    """

    def __init__(self, vllm_config: Any) -> None:
        import vllm

        check_version(vllm.__version__)
        runner = find_runner(sys._getframe(), vllm.__version__)
        mend(str(vllm_config.device_config.device_type))
        settings = read_settings(vllm_config.additional_config)
        self._metrics = Metrics.of(vllm_config)
        facts = facts_of(vllm_config, runner.version)
        self._turns: Turns | None = Turns(facts, runner, settings, self._metrics)
        atexit.register(self.close)

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is none."""

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: NDArray[np.integer[Any]],
        token_ids_cpu: NDArray[np.integer[Any]],
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Draft token ids for each row of the batch; empty ones where drafting does not pay.

        Nothing that fails here reaches vLLM: it is logged, and from then on nothing is drafted.

        Args:
            sampled_token_ids: what each row's step emitted; nothing for a prompt that is still being read.
            num_tokens_no_spec: (rows,) tokens of each.
            token_ids_cpu: (rows, length) those tokens.
            slot_mappings: unused.
        """
        called = time.perf_counter()
        if self._turns is None:
            return [[] for _ in sampled_token_ids]
        try:
            return self._turns.take(sampled_token_ids, num_tokens_no_spec, token_ids_cpu, called)
        except Exception:
            _log.exception("Paceline failed; vLLM goes on without drafts.")
            self._metrics.failed()
            self.close()
            return [[] for _ in sampled_token_ids]

    def close(self) -> None:
        """Keep what was learnt; nothing is drafted any more."""
        turns, self._turns = self._turns, None
        if turns is not None:
            try:
                turns.close()
            except Exception:
                _log.exception("Paceline could not keep what it has learnt.")
