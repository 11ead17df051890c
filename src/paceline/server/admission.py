"""How much may be open at once: counted before a prompt is read, and given back at the end of a response."""

from __future__ import annotations

from paceline.server.errors import ApiError
from paceline.server.settings import Limits


class Admission:
    """Samples and prompt tokens that run or wait. Used in the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.is_draining = False
        self.num_open = 0  # samples
        self.num_prompt_tokens = 0
        self.num_refused = 0

    def enter(self, num_samples: int) -> Ticket:
        """Room for so many samples.

        Raises:
            ApiError: there is none, or the server is ending.
        """
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", headers={"retry-after": "5"})
        most = self._limits.max_samples
        if num_samples > most:
            raise ApiError(400, f"n times the prompts is {num_samples}; allowed: {most}", "n")
        self._check("requests", self.num_open, num_samples, self._limits.max_open_requests)
        self.num_open += num_samples
        return Ticket(self, num_samples)

    def add_prompt_tokens(self, count: int) -> None:
        """Room for prompts.

        Raises:
            ApiError: there is none.
        """
        self._check("prompt tokens", self.num_prompt_tokens, count, self._limits.max_queued_prompt_tokens)
        self.num_prompt_tokens += count

    def _check(self, what: str, num_open: int, count: int, allowed: int) -> None:
        if num_open and num_open + count > allowed:  # a request that is alone is measured by the context
            self.num_refused += 1
            message = f"{num_open} {what} are open and {count} more were sent; allowed: {allowed}"
            raise ApiError(429, message, code="queue_full", headers={"retry-after": "1"})


class Ticket:
    """The room of one HTTP request."""

    def __init__(self, admission: Admission, num_samples: int) -> None:
        self._admission, self._num_samples, self._num_prompt_tokens = admission, num_samples, 0

    def add_prompt_tokens(self, count: int) -> None:
        """See `Admission`."""
        self._admission.add_prompt_tokens(count)
        self._num_prompt_tokens += count

    def give_back(self) -> None:
        """Once; again does nothing."""
        self._admission.num_open -= self._num_samples
        self._admission.num_prompt_tokens -= self._num_prompt_tokens
        self._num_samples = self._num_prompt_tokens = 0
