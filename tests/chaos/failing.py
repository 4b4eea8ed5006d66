"""A handler that always fails, in a region that is well: attempts and gaps as the queue says, and what comes after.

A validation whose submission is gone fails at every attempt. When it is back, the dead letter is requeued, and done. A
receiver that always answers 500 is tried again as its queue says, and leaves no dead letter: nobody here could mend it.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tests.chaos import ledger
from tests.chaos.region import StruckRegion, until
from tests.chaos.report import Check, Verdict
from tests.chaos.sink import FAILING, Message, Sink
from tests.chaos.work import Client, submission

# How far a gap may be from the queue's: a share, and what a busy machine takes to deliver and to begin.
SHARE, SECONDS = 0.2, 1.5
# At least so often the receiver fails before it is mended; the dead letter may take longer on a busy machine.
FAILURES = 3
# Of somebody else's validation, from accepted to done, meanwhile.
OTHERS_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """A queue's retries, as Cloud Tasks says they are."""

    attempts: int
    least: float
    most: float
    doublings: int

    @classmethod
    def of(cls, region: StruckRegion, queue: str) -> "Patience":
        config = region.queue(queue)["retryConfig"]
        return cls(
            attempts=int(config["maxAttempts"]),
            least=float(config["minBackoff"].removesuffix("s")),
            most=float(config["maxBackoff"].removesuffix("s")),
            doublings=int(config["maxDoublings"]),
        )

    def gaps(self) -> list[float]:
        """Between the attempts: doubled, then grown by the last doubled interval, below the ceiling."""
        found, step = [], self.least
        for at in range(self.attempts - 1):
            found.append(min(step, self.most))
            step = step * 2 if at < self.doublings else step + self.least * 2**self.doublings
        return found


def compared(promise: str, expected: list[float], found: list[float]) -> Check:
    is_right = len(expected) == len(found) and all(
        wanted * (1 - SHARE) <= gap <= wanted * (1 + SHARE) + SECONDS
        for wanted, gap in zip(expected, found, strict=True)
    )
    text = f"{len(found) + 1} attempts, gaps {', '.join(f'{gap:.1f}' for gap in found)} s"
    asked = f"the queue says {len(expected) + 1}, and {', '.join(f'{gap:.0f}' for gap in expected)} s"
    return Check(
        promise=promise,
        verdict=Verdict.HELD if is_right else Verdict.BROKEN,
        found=text,
        offenders=() if is_right else (f"{text}; {asked}",),
    )


def check(
    region: StruckRegion, sink: Sink, failing: Client, others: Client, intended: set[str], say: Callable[[str], None]
) -> Iterator[Check]:
    """`intended` gets the job whose dead letter is wanted. What `others` submits here is nobody's who counts."""
    patience = Patience.of(region, "validations")
    ((since,),) = region.rows("SELECT now()")
    bucket = region.media()

    # While the queue is paused, nobody reads the submission.
    region.switch_queue("validations", "pause")
    job = str(failing.post("/api/validations?mode=async", submission(1), key=uuid.uuid4().hex)["id"])
    intended.add(job)
    ((name,),) = region.rows(f"SELECT media_name FROM {ledger.JOBS} WHERE id = %s", [job])  # noqa: S608
    content = bucket.blob(name).download_as_bytes()
    bucket.blob(name).delete()
    region.switch_queue("validations", "resume")
    well = str(failing.post("/api/validations?mode=async", submission(0), key=uuid.uuid4().hex)["id"])
    say(f"validation {job} fails at every attempt, and a receiver answers 500")

    during: list[str] = []
    deadline = time.monotonic() + sum(patience.gaps()) + 60

    def is_failed() -> bool:
        during.append(str(others.post("/api/validations?mode=async", submission(2), key=uuid.uuid4().hex)["id"]))
        return ledger.changes(region, job)[-1:] != [] and ledger.changes(region, job)[-1][1] == "FAILED"

    until("the dead letter", is_failed, deadline - time.monotonic(), pause=1.0)

    yield _attempts(region, job, patience)
    yield from _letter(region, job, patience, since)
    yield from _receiver(region, sink, f"msg_{well}-0")
    yield _others(region, during)

    bucket.blob(name).upload_from_string(content)
    say("the submission is back: the dead letter is requeued")
    ((letter,),) = region.rows("SELECT id FROM dead_letters_deadletter WHERE task_id = %s", [job])
    printed = region.maintain("dead-letters", "requeue", str(letter))
    try:
        until("the end of what was requeued", lambda: ledger.changes(region, job)[-1][1] == "SUCCESS", 60)
        row = region.rows(f"SELECT state, verdict, errors FROM {ledger.JOBS} WHERE id = %s", [job])  # noqa: S608
        rows = region.rows("SELECT state, is_parked FROM dead_letters_deadletter WHERE id = %s", [letter])
        wrong = [] if row == [("SUCCESS", "FAIL", 1)] and rows == [("REQUEUED", False)] else [f"{row}, letter {rows}"]
        wrong += [task["name"] for task in region.tasks_in("validations-dead-letters")]
        until("the message of the second end", lambda: _delivered(sink, f"msg_{job}-1"), 120)
    except TimeoutError as error:
        wrong = [f"{error}; requeue printed {printed}"]
    yield Check.none("requeued after the fix, it is done, and told", wrong, 1, "dead letters")


def _attempts(region: StruckRegion, job: str, patience: Patience) -> Check:
    """Gaps from the end of an attempt, when its lease is given back, to the beginning of the next."""
    found = ledger.changes(region, job)
    begun = [at for at, state in found if state == "RUNNING"]
    ended = [at for at, state in found if state == "PENDING"]
    gaps = [start - end for start, end in zip(begun[1:], ended, strict=False)]
    return compared("a handler that always fails is tried as its queue says", patience.gaps(), gaps)


def _letter(region: StruckRegion, job: str, patience: Patience, since: datetime) -> Iterator[Check]:
    rows = region.rows(
        "SELECT route, task_id, attempts, state, is_parked FROM dead_letters_deadletter WHERE failed_at >= %s", [since]
    )
    wrong = [] if rows == [("run-validation", job, patience.attempts, "WAITING", True)] else [f"found {rows}"]
    yield Check.none("one dead letter, of what failed always", wrong, 1, "letters")
    listed = [line for line in region.maintain("dead-letters", "list") if f"run-validation/{job}" in line]
    parked = region.tasks_in("validations-dead-letters")
    wrong = [] if len(listed) == 1 and len(parked) == 1 else [f"listed {listed}, parked {len(parked)}"]
    yield Check.none("it is listed, and a copy is parked in the paused queue", wrong, 1, "dead letters")


def _receiver(region: StruckRegion, sink: Sink, message_id: str) -> Iterator[Check]:
    wanted = Patience.of(region, "webhooks").gaps()

    def attempts() -> list[Message]:
        return sink.received(FAILING).get(message_id, [])

    until("failed deliveries", lambda: len(attempts()) >= FAILURES, sum(wanted[:FAILURES]) + 30)
    sink.mended.set()
    until("the delivery to a mended receiver", lambda: _delivered(sink, message_id), wanted[len(attempts()) - 1] + 30)
    found = attempts()
    gaps = [after.at - before.at for before, after in pairwise(found)]
    yield compared("a receiver that fails is tried as its queue says, until it is mended", wanted[: len(gaps)], gaps)
    ((letters,),) = region.rows("SELECT count(*) FROM dead_letters_deadletter WHERE route = 'deliver-webhook'")
    yield Check.none("it leaves no dead letter", [letters] if letters else [], 1, "receivers")


def _delivered(sink: Sink, message_id: str) -> bool:
    return any(message.status < 300 for message in sink.received(FAILING).get(message_id, []))


def _others(region: StruckRegion, ids: list[str]) -> Check:
    until(
        "the end of the others",
        lambda: (
            not region.rows(
                f"SELECT 1 FROM {ledger.JOBS} WHERE id = ANY(%s::uuid[]) AND finished_at IS NULL",  # noqa: S608
                [ids],
            )
        ),
        60,
    )
    slow = region.rows(
        f"""SELECT id, extract(epoch FROM finished_at - created_at) FROM {ledger.JOBS}
        WHERE id = ANY(%s::uuid[]) AND finished_at - created_at > %s * interval '1 second'""",  # noqa: S608
        [ids, OTHERS_SECONDS],
    )
    late = [f"{id_}: {float(seconds):.1f} s" for id_, seconds in slow]
    return Check.none(f"nothing else was delayed: done within {OTHERS_SECONDS:.0f} s", late, len(ids), "validations")
