"""Types of command line arguments: argparse answers what they raise with one line and the usage."""

import argparse
import re


def count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError("must be a whole number from 1 on")
    return int(text)
