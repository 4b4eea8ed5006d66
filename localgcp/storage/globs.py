"""`matchGlob`: `*` within a folder, `**` across folders, `?`, `[…]`, `{a,b}`."""

import re
from collections.abc import Callable

from localgcp.errors import InvalidArgument


def matcher(glob: str) -> Callable[[str], bool]:
    """Raises InvalidArgument for a pattern that cannot be read."""
    try:
        pattern = re.compile(_translated(glob), re.DOTALL)
    except (re.error, IndexError):
        raise InvalidArgument(f"Invalid glob pattern: {glob}", reason="invalid", location="matchGlob") from None
    return lambda name: pattern.fullmatch(name) is not None


def _translated(glob: str) -> str:
    result: list[str] = []
    depth = 0
    at = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            if glob[at : at + 1] != "*":
                result.append("[^/]*")
                continue
            at += 1
            if glob[at : at + 1] == "/" and (len(result) == 0 or result[-1] == "/"):
                at += 1
                result.append("(?:.*/)?")  # `**/` also stands for no folder at all
            else:
                result.append(".*")
        elif char == "?":
            result.append("[^/]")
        elif char == "[":
            end = glob.index("]", at + 1) if "]" in glob[at + 1 :] else -1
            if end < 0:
                raise IndexError
            inner = glob[at:end].replace("\\", "\\\\")
            result.append("[" + ("^" + inner[1:] if inner[:1] in "!^" else inner) + "]")
            at = end + 1
        elif char == "{":
            depth += 1
            result.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            result.append(")")
        elif char == "," and depth:
            result.append("|")
        elif char == "\\":
            result.append(re.escape(glob[at]))
            at += 1
        else:
            result.append(re.escape(char))
    if depth:
        raise IndexError
    return "".join(result)
