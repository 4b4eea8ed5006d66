"""The sandboxed process: reads submissions from its socket, validates, answers.

It limits itself before it reads anything. What the limits cannot stop, the parent does: it kills.
"""

import gc
import json
import resource
import signal
import socket
from pathlib import Path
from typing import Any

from app.validations.engines import cel, submission, wire
from app.validations.engines.limits import MEMORY_HEADROOM_BYTES
from app.validations.engines.results import Refused, over_budget

STATM = Path("/proc/self/statm")  # proc(5): total and resident size first, in pages
RECYCLE_ABOVE_BYTES = 192 * 1024 * 1024


def main() -> None:
    link = socket.socket(fileno=0)
    _limit()
    # A parsed document is a tree without cycles: reference counts free it, and the collector, which would walk it
    # again and again while it grows, tripled the time of a 9 MB document.
    gc.disable()
    while True:
        head, body = wire.receive(link)
        if head is None:
            return
        # The parent kills a child that takes too long. Should the parent be gone, the kernel does: the default
        # action of SIGALRM needs no cooperation of the code that hangs.
        signal.setitimer(signal.ITIMER_REAL, float(head["seconds"]) + 5)
        answer = _answer(link, body, head.get("content_type"), is_outline=bool(head.get("is_outline")))
        signal.setitimer(signal.ITIMER_REAL, 0)
        del body
        # Memory that a large document fragmented does not come back; a fresh child is cheaper.
        answer["last"] = answer.get("last", False) or _resident_bytes() > RECYCLE_ABOVE_BYTES
        wire.send(link, answer)
        if answer["last"]:
            return


def _answer(link: socket.socket, body: bytes, content_type: str | None, *, is_outline: bool) -> dict[str, Any]:
    """Of a submission; without a content type, of a condition that the application itself has put into words."""
    where = "condition" if content_type is None else "body"

    def progress(field: str) -> None:
        nonlocal where
        where = field
        wire.send(link, {"at": field})

    try:
        if content_type is None:
            condition = json.loads(body)
            return {"why_not": cel.holds(condition["expression"], condition["variables"])}
        report = submission.outline(body, content_type) if is_outline else submission.run(body, content_type, progress)
    except Refused as refused:
        return {"refused": refused.as_dict()}
    except MemoryError:
        return {"refused": out_of_memory(where).as_dict()} | {"last": True}
    return {
        "validator": report.validator.value,
        "filename": report.filename,
        "findings": [finding.as_dict() for finding in report.findings],
        "is_truncated": report.is_truncated,
    }


def out_of_memory(where: str) -> Refused:
    return over_budget(
        where,
        f"validating needed more memory than it may (while working on: {where})",
        "send a smaller or simpler file",
    )


def _limit() -> None:
    # Without /proc (macOS) address space cannot be limited either; time still is.
    if STATM.exists():
        ceiling = _pages(0) * resource.getpagesize() + MEMORY_HEADROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _resident_bytes() -> int:
    return _pages(1) * resource.getpagesize() if STATM.exists() else 0


def _pages(column: int) -> int:
    return int(STATM.read_text(encoding="ascii").split()[column])


if __name__ == "__main__":
    main()
