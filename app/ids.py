"""Ids that follow time."""

import os
import time
import uuid
from datetime import datetime


def time_ordered_id() -> uuid.UUID:
    """A version 7 UUID (RFC 9562): new rows land at the end of the index, and sorting by id sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    return uuid.UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def first_id_of(moment: datetime) -> uuid.UUID:
    """The lowest id that a row made at `moment` can have."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76)


def id_of(text: str) -> uuid.UUID:
    """The id that a task carries; for what can be none, the nil UUID, which no row has."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.UUID(int=0)
