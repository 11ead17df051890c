"""Reading code and a model makes a million objects that stay: looking for garbage among them takes a second."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_later() -> Iterator[None]:
    """Look for no garbage while a `with` lasts; what was made in it counts as old afterwards, and is not gone through.

    Within another one, or where the caller has turned the collector off, nothing is changed.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else the caller's frozen objects would be thawed
            gc.freeze()
            gc.unfreeze()
        gc.enable()
