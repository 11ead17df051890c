"""Which replica a request belongs to, and what a proxy hands on. Knows nothing of Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from paceline.vllm.tenants import api_key_of, tenant_of

MAX_BODY = 16 * 2**20  # bytes
SESSION = "x-session-id"
# Of one connection, or set anew by whoever hands on.
_OWN = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


def session_of(headers: Mapping[str, str], body: bytes, secret: bytes) -> str:
    """What requests of one replica have in common; empty: any replica will do.

    It is the client's `x-session-id`, else its `cache_salt` and API key, as a name that tells nothing of them. What
    `history` and the prefix cache know of earlier requests is where those went.
    """
    key = api_key_of((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
    if session := headers.get(SESSION, ""):
        return tenant_of(key, None, session, secret)
    return tenant_of(key, _salt(body), None, secret)


def _salt(body: bytes) -> object:
    if b'"cache_salt"' not in body:
        return None
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields.get("cache_salt") if isinstance(fields, dict) else None


def handed_on(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers that are about a request or an answer, and not about its connection."""
    return [(name, value) for name, value in headers if name.lower() not in _OWN]
