"""A region at work while everything around the work fails, and the count of what became of it.

`scripts/chaos.py` runs it in full, `tests/e2e/test_chaos.py` in small.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.queues import QUEUES
from tests.chaos import failing, ledger
from tests.chaos.ledger import Ledger
from tests.chaos.region import StruckRegion
from tests.chaos.report import Check, Report
from tests.chaos.sink import FAILING, GOOD, OTHER, Sink
from tests.chaos.strikes import LAPSED, STANDING, Script, Strikes
from tests.chaos.work import KEY_SECONDS, Accepted, Client, submission, submit, workflow

REQUESTS_PER_HOUR: Final = 1_000_000_000
# Of the acknowledged validations, so many are submitted once more under their idempotency keys.
REPEATED: Final = 20


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """What to submit, and what to do meanwhile. `settle_seconds` bounds the wait for the last end."""

    validations: int
    runs: int
    script: Script
    settle_seconds: float
    # Run the sweep and the reaper while waiting, instead of waiting for their schedules.
    hurry: bool = False
    # How long a customer keeps an idempotency key that a request which died may hold, before taking another one.
    key_seconds: float = KEY_SECONDS


def customer(region: StruckRegion, slug: str, url: str, *, key_seconds: float) -> Client:
    """An organisation with a key that has no limit, and a webhook endpoint."""
    key = f"vb_au_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    region.maintain(
        *("create_organization", "--slug", slug, "--name", slug),
        *("--data-region", region.outputs["data_region"], "--requests-per-hour", str(REQUESTS_PER_HOUR)),
        *("--api-key-prefix", key.split("_")[2], "--api-key-hash", hashlib.sha256(key.encode()).hexdigest()),
    )
    region.maintain("create_webhook_endpoint", "--organization", slug, "--url", url, "--internal")
    return Client(front_door=region.front_door, key=key, key_seconds=key_seconds)


def run(region: StruckRegion, chaos: Chaos, say: Callable[[str], None]) -> Report:
    """Raises: Refused, TimeoutError and others when the chaos itself could not be carried out."""
    report = Report()
    with Sink() as sink:
        organization = f"chaos-{secrets.token_hex(4)}"
        client = customer(region, organization, sink.url(GOOD), key_seconds=chaos.key_seconds)
        failing_client = customer(region, f"{organization}-failing", sink.url(FAILING), key_seconds=chaos.key_seconds)
        other_client = customer(region, f"{organization}-other", sink.url(OTHER), key_seconds=chaos.key_seconds)
        (endpoint,) = client.get("/api/webhooks")["items"]
        secret = client.post(f"/api/webhooks/{endpoint['id']}/rotate-secret", {})["secret"]
        workflow_id = client.post("/api/workflows", workflow("chaos", endpoint["id"]))["workflow"]
        ledger.install(region)
        ((since,),) = region.rows("SELECT now()")

        accepted = Accepted()
        strikes = Strikes(region=region, script=chaos.script, say=say)
        began = time.monotonic()
        strikes.begin()
        try:
            _submit(client, accepted, workflow_id, chaos, strikes, say)
            submitted = time.monotonic() - began
            strikes.end()
        except BaseException:
            strikes.give_up()
            raise
        struck = time.monotonic() - began
        say(f"{dict(strikes.done)}; every fault is cleared: waiting for the last end")
        deadline = time.monotonic() + chaos.settle_seconds
        while ledger.due(region) and time.monotonic() < deadline:
            time.sleep(1)
        # While what dead workers held waits for the end of its leases.
        intended: set[str] = set()
        checks: list[Check] = []
        try:
            checks += failing.check(region, sink, failing_client, other_client, intended, say)
        except TimeoutError as error:
            checks.append(Check.unverified("a handler that always fails", str(error)))
        left = _settle(region, chaos, deadline, say)
        settled = time.monotonic() - began

        report.checks += _faults(strikes, chaos.script)
        report.checks.append(_settled(left, chaos))
        report.checks.append(_repeated(client, accepted))
        book = Ledger(
            region=region,
            organization=organization,
            since=since,
            intended=intended,
            accepted=accepted,
            messages=sink.received(GOOD),
            secret=secret,
        )
        report.checks += book.checks()
        report.numbers |= {
            "acknowledged": f"{len(accepted.validations)} validations, {len(accepted.runs)} runs",
            "sent again by the customer": client.retries,
            "strikes": ", ".join(f"{kind}: {count}" for kind, count in sorted(strikes.done.items())),
            "faults that struck": ", ".join(f"{kind}: {count}" for kind, count in sorted(strikes.hits.items())),
            "seconds": f"{submitted:.0f} submitting, {struck:.0f} under faults, {settled:.0f} to the last end",
            **book.numbers(),
        }
        report.checks += checks
    return report


def _submit(
    client: Client, accepted: Accepted, workflow_id: str, chaos: Chaos, strikes: Strikes, say: Callable[[str], None]
) -> None:
    told = time.monotonic()
    for count in submit(
        client,
        accepted,
        validations=chaos.validations,
        runs=chaos.runs,
        workflow_id=workflow_id,
        # So that the last ones are under way while it still strikes.
        seconds=chaos.script.duration_seconds * 0.8,
        stop=lambda: strikes.error is not None,
    ):
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"{count} of {chaos.validations + chaos.runs} acknowledged")


def _settle(region: StruckRegion, chaos: Chaos, deadline: float, say: Callable[[str], None]) -> dict[str, int]:
    """Wait until no row is unfinished and no task is left; what is, when the time is over."""
    told = hurried = time.monotonic()
    while True:
        left = {name: count for name, count in ledger.unfinished(region).items() if count}
        left |= {f"queue {spec.name}": count for spec in QUEUES if (count := len(region.tasks_in(spec.name)))}
        if not left or time.monotonic() > deadline:
            return left
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"under way: {', '.join(f'{count} in {name}' for name, count in left.items())}")
        if chaos.hurry and time.monotonic() - hurried > 5:
            hurried = time.monotonic()
            region.run_schedules("reap-stuck-runs", "re-enqueue-pending")
        time.sleep(1)


def _settled(left: dict[str, int], chaos: Chaos) -> Check:
    offenders = [f"{count} in {name}" for name, count in left.items()]
    promise = f"everything has ended within {chaos.settle_seconds:.0f} s of the last fault"
    return Check.none(promise, offenders, chaos.validations + chaos.runs, "submissions")


def _faults(strikes: Strikes, script: Script) -> list[Check]:
    """Without its faults, a run shows nothing."""
    checks = []
    wanted = {
        "kill a worker": script.worker_kills,
        "restart the database": script.database_restarts,
        "kill the region": script.region_kills,
    }
    missed = [f"{kind}: {strikes.done[kind]} of {n}" for kind, n in wanted.items() if strikes.done[kind] < n]
    standing = [*(str(fault["kind"]) for fault in STANDING), LAPSED]
    missed += [f"{kind} struck nothing" for kind in standing if not strikes.hits[kind]]
    if missed:
        checks.append(Check.unverified("the faults have struck", "; ".join(missed)))
    else:
        checks.append(Check.none("the faults have struck", [], sum(wanted.values()), "strikes"))
    return checks


def _repeated(client: Client, accepted: Accepted) -> Check:
    """A client that missed its answer asks again: it is told of the same job."""
    wrong = []
    some = [(id_, n) for id_, n in accepted.validations.items() if n < REPEATED]
    for id_, number in some:
        again = client.post("/api/validations?mode=async", submission(number), key=accepted.keys[number])["id"]
        if again != id_:
            wrong.append(f"{id_}: answered again with {again}")
    return Check.none("a submission that is sent again is the same job", wrong, len(some), "submissions")
