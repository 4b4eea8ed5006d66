"""Failures of what the program does by itself: their message is all that there is to say."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Failure(Exception):
    """The message says what happened, and why as far as Google told."""


@contextmanager
def told_plainly() -> Iterator[None]:
    """Let the user of a dynamic resource read the message of a failure, without the stack that it came through.

    Pulumi's host for such resources shows what `traceback` makes of an exception, its own frame included, and nothing
    but this limit of the whole process shortens that. The process ends with the update that has failed. Anything but a
    `Failure` is a mistake of ours and keeps its stack.
    """
    try:
        yield
    except Failure:
        sys.tracebacklimit = 0
        raise
