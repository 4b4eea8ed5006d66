"""What the sweep of the outbox and the reaper cost as waiting rows grow to a million, against a thousand.

The statements are the application's own, on a Postgres with its migrations; each is measured inside a transaction that
is rolled back. Waiting rows are PENDING and not due, which is what a full queue looks like; a batch of rows is due in
one case, none in another, and all of them in the third.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.measure import say, spread
from scripts.up import ROOT
from tests.app.environment import environment
from tests.app.postgres import Postgres

SIZES = (1_000, 10_000, 100_000, 1_000_000)
TABLE = "validations_validationjob"
INSERT = f"""
    INSERT INTO {TABLE} (
        id, organization_id, validator, state, verdict, filename, media_name, content_type, content_bytes,
        content_sha256, errors, warnings, infos, findings_truncated, created_at, attempts, generation, sweep_at, sweeps
    )
    SELECT gen_random_uuid(), (SELECT id FROM organizations_organization LIMIT 1), 'json-schema', 'PENDING', '', '',
        'submissions/bench', 'application/json', 100, '', 0, 0, 0, false, now(), 0, 0,
        now() + interval '1 day' + number * interval '1 millisecond', 0
    FROM generate_series(1, %s) AS number
"""  # noqa: S608  # the table's name is above
DUE = f"UPDATE {TABLE} SET sweep_at = now() - interval '1 minute' WHERE id IN (SELECT id FROM {TABLE} LIMIT %s)"  # noqa: S608
ALL_DUE = f"UPDATE {TABLE} SET sweep_at = sweep_at - interval '3 days'"  # noqa: S608
NONE_DUE = f"UPDATE {TABLE} SET sweep_at = now() + interval '1 day' WHERE sweep_at < now()"  # noqa: S608
RUNNING = f"""
    UPDATE {TABLE} SET state = 'RUNNING', sweep_at = NULL, lease_token = gen_random_uuid(),
        lease_expires_at = now() + interval '1 day'
"""  # noqa: S608
DEAD = f"""
    UPDATE {TABLE} SET lease_expires_at = now() - interval '1 minute' WHERE id IN (SELECT id FROM {TABLE} LIMIT %s)
"""  # noqa: S608


def migrated(postgres: Postgres, media: Path) -> psycopg.Connection[Any]:
    """A database of the application's with an organisation in it."""
    postgres.create()
    with postgres.connect() as admin:
        admin.execute("CREATE DATABASE validibot")
    os.environ |= environment(postgres.directory, media) | {"VALIDIBOT_ROLE": "job"}
    key = ("--api-key-prefix", "12345678", "--api-key-hash", "0" * 64)
    for arguments in (
        ("migrate_region",),
        ("create_organization", "--slug", "bench", "--name", "Bench", "--data-region", "AU", *key),
    ):
        subprocess.run([sys.executable, "-m", "app", *arguments], cwd=ROOT, check=True, stdout=sys.stderr)
    return postgres.connect("validibot")


def milliseconds(database: psycopg.Connection[Any], statement: str, batch: int, times: int) -> list[float]:
    """How long the statement takes, each time from the same state."""
    taken = []
    for _ in range(times):
        with database.transaction(force_rollback=True):
            began = time.perf_counter()
            database.execute(statement, [batch])
            taken.append((time.perf_counter() - began) * 1000)
    return taken


def plan(database: psycopg.Connection[Any], statement: str, batch: int) -> str:
    with database.transaction(force_rollback=True):
        rows = database.execute("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) " + statement, [batch]).fetchall()
    return "\n".join(row[0] for row in rows)


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    statement: str
    batch: int
    prepare: str
    parameters: tuple[int, ...] = ()


def cases_of_the_application() -> tuple[Case, ...]:
    """In this order: each begins with the rows that the one before has left."""
    import django

    django.setup()
    from app import outbox

    sweep, reap, batch = outbox.SWEEP.format(table=TABLE), outbox.REAP.format(table=TABLE), outbox.BATCH
    return (
        Case(name="sweep, nothing due", statement=sweep, batch=batch, prepare=NONE_DUE),
        Case(name=f"sweep, {batch} due", statement=sweep, batch=batch, prepare=DUE, parameters=(batch,)),
        Case(name="sweep, all due", statement=sweep, batch=batch, prepare=ALL_DUE),
        Case(name="reaper, nothing dead", statement=reap, batch=batch, prepare=RUNNING),
        Case(name=f"reaper, {batch} dead", statement=reap, batch=batch, prepare=DEAD, parameters=(batch,)),
    )


def run(rounds: int, sizes: tuple[int, ...] = SIZES) -> None:
    """Measure and print."""
    taken: dict[tuple[str, int], list[float]] = {}
    plans: dict[str, str] = {}
    postgres = Postgres.reserve()
    with tempfile.TemporaryDirectory() as media:
        try:
            database = migrated(postgres, Path(media))
            cases = cases_of_the_application()
            for size in sizes:
                database.execute(f"TRUNCATE {TABLE} CASCADE")
                database.execute(INSERT, [size])
                for case in cases:
                    database.execute(case.prepare, case.parameters)
                    database.execute(f"VACUUM ANALYZE {TABLE}")
                    taken[case.name, size] = milliseconds(database, case.statement, case.batch, rounds)
                    plans[case.name] = plan(database, case.statement, case.batch)
                    seen = spread(taken[case.name, size])
                    say(f"{size:,} rows, {case.name}: {seen} ms (load {os.getloadavg()[0]:.1f})")
            database.close()
        finally:
            postgres.destroy()
    print(f"| milliseconds | {' | '.join(f'{size:,} rows' for size in sizes)} | largest to smallest |")
    print(f"|---|{'---|' * (len(sizes) + 1)}")
    for name in plans:
        cells = [spread(taken[name, size]) for size in sizes]
        ratio = statistics.median(taken[name, sizes[-1]]) / statistics.median(taken[name, sizes[0]])
        print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |")
    print(f"\nMedian (smallest to largest) of {rounds}. Postgres without fsync, all in memory.")
    for name, text in plans.items():
        print(f"\n{name}, {sizes[-1]:,} rows:\n\n```\n{text}\n```")
