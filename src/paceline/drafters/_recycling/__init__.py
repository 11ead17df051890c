"""The table behind the drafter `recycle`: in numpy, or the same in native code."""

from paceline.drafters._recycling.native import make_table
from paceline.drafters._recycling.table import CHANCES, Table, token_before

__all__ = ["CHANCES", "Table", "make_table", "token_before"]
