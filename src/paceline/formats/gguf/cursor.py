"""Reading a GGUF file's header byte by byte: no step is taken that the file is too short for."""

from __future__ import annotations

import struct
from typing import Any, Final

from paceline.errors import ModelError

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class Cursor:
    """A place in the bytes of a file."""

    def __init__(self, view: memoryview, name: str) -> None:
        self.view = view
        self.name = name
        self.at = 0

    def need(self, num_bytes: int, what: str) -> None:
        """Make sure that so many bytes are left.

        Raises:
            ModelError: fewer are.
        """
        left = len(self.view) - self.at
        if num_bytes > left:
            raise ModelError(
                f"{self.name}: {what} at byte {self.at} takes {num_bytes} bytes; "
                f"allowed: the {left} that are left of {len(self.view)}"
            )

    def u32(self, what: str) -> int:
        """An unsigned number of 4 bytes."""
        return int(self.unpack(_U32, what))

    def u64(self, what: str) -> int:
        """An unsigned number of 8 bytes."""
        return int(self.unpack(_U64, what))

    def unpack(self, form: struct.Struct, what: str) -> Any:
        """One value of a form."""
        self.need(form.size, what)
        (value,) = form.unpack_from(self.view, self.at)
        self.at += form.size
        return value

    def count(self, what: str, item_bytes: int, limit: int) -> int:
        """A number of items that follow, each of at least so many bytes.

        Raises:
            ModelError: more than the limit, or than the rest of the file has room for.
        """
        count = self.u64(f"the number of {what}")
        room = (len(self.view) - self.at) // item_bytes
        if count > min(limit, room):
            raise ModelError(
                f"{self.name}: the number of {what} is {count}; allowed: at most {min(limit, room)}"
                + (", which the rest of the file has room for" if room < limit else "")
            )
        return count

    def text(self, what: str, limit: int) -> str:
        """A string: its length in 8 bytes, then UTF-8."""
        length = self.count(f"bytes of {what}", 1, limit)
        begin, self.at = self.at, self.at + length
        return decoded(self.view[begin : self.at], f"{self.name}: {what}")

    def skip_texts(self, count: int, what: str) -> None:
        """Step over an array of strings; quick, since a vocabulary has hundreds of thousands."""
        view, at, end, unpack = self.view, self.at, len(self.view) - 8, _U64.unpack_from
        for index in range(count):
            if at > end:
                self.at = min(at, len(view))
                raise ModelError(f"{self.name}: {what} ends after {index} of {count} strings; allowed: all of them")
            at += 8 + unpack(view, at)[0]
        if at > len(view):
            raise ModelError(f"{self.name}: the last string of {what} ends at byte {at}; allowed: {len(view)}")
        self.at = at


def texts(view: memoryview, at: int, count: int, what: str) -> list[str]:
    """The strings of an array that `skip_texts` has stepped over."""
    found = []
    for index in range(count):
        begin = at + 8
        at = begin + _U64.unpack_from(view, at)[0]
        try:
            found.append(str(view[begin:at], "utf-8"))
        except UnicodeDecodeError:
            decoded(view[begin:at], f"{what}[{index}]")
    return found


def decoded(raw: memoryview, what: str) -> str:
    """UTF-8 as text.

    Raises:
        ModelError: it is not UTF-8.
    """
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{what} is {bytes(raw[:32])!r}; allowed: UTF-8") from error
