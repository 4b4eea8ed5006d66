"""Types of command line arguments: argparse answers what they raise with one line and the usage."""

import argparse
import re
from typing import Final

#: What an `integer` column of Postgres holds.
MOST: Final = 2**31 - 1


def count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,9}", text) or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST}")
    return int(text)
