"""Whose a request is: a name that tells nothing of keys and salts, and that nobody can make up.

Who could name another's tenant would have drafts from its texts, and could tell by time what they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from paceline.cache import state_folder

_NUM_BYTES = 32
_DIGEST = 16  # bytes


def tenant_of(api_key: str, cache_salt: Any, own: Any, secret: bytes) -> str:
    """The tenant of a key, a `cache_salt` and the name that a client gives itself; empty if there is none of them.

    Different ones never share a tenant, so a client that names itself cannot be another key's.
    """
    said = [api_key, cache_salt if isinstance(cache_salt, str) else "", "" if own is None else str(own)]
    if not any(said):
        return ""
    return hashlib.blake2b(json.dumps(said).encode(), key=secret, digest_size=_DIGEST).hexdigest()


def api_key_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The key of a request by its headers, `Authorization: Bearer` or `x-api-key`; empty without one."""
    for name, value in headers:
        text = value.decode("latin-1")
        scheme, _, key = text.partition(" ")
        if name == b"authorization" and scheme.lower() == "bearer":
            return key.strip()
        if name == b"x-api-key":
            return text.strip()
    return ""


def kept_secret() -> bytes:
    """This machine's, so that all processes and those to come name tenants alike; one of its own if none is kept."""
    file = state_folder() / "vllm" / "tenants.key"
    with suppress(OSError):
        if not file.exists():
            _keep(file, secrets.token_bytes(_NUM_BYTES))
        kept = file.read_bytes()
        if len(kept) == _NUM_BYTES:
            return kept
    return secrets.token_bytes(_NUM_BYTES)


def _keep(file: Path, secret: bytes) -> None:
    """Write it for this user alone; of several that try at once one succeeds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent)  # readable by its owner alone
    try:
        with os.fdopen(handle, "wb") as temporary:
            temporary.write(secret)
        with suppress(FileExistsError):
            os.link(name, file)
    finally:
        os.unlink(name)
