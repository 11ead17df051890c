"""What the streams of all endpoints share."""

from __future__ import annotations

from collections.abc import Sequence

from paceline.server.errors import ApiError, as_api_error
from paceline.server.events import event
from paceline.server.schemas.sampling import SamplingBody


def stream_options(body: SamplingBody) -> tuple[bool, bool]:
    """Whether usage is told at the end of a stream, and in each of its chunks.

    Raises:
        ApiError: options of a stream where none is asked for.
    """
    options = body.stream_options
    if options is None:
        return False, False
    if not body.stream:
        raise ApiError(400, "stream_options is given without stream; allowed: with stream: true", "stream_options")
    return bool(options.include_usage), bool(options.continuous_usage_stats)


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The header that names the fields which were ignored."""
    shown = ", ".join(name[:40] for name in names[:20] if name.isascii() and name.isprintable())
    return {"x-paceline-ignored-fields": shown or "unnamed"} if names else {}


def failed(error: Exception, response_id: str) -> bytes:
    """An error behind the first chunks of a stream."""
    return event(as_api_error(error, response_id).body())
