"""Enqueue validations in the application's environment, wait until they are done, and print what was seen as JSON.

`bench.queueing` runs this file beside an image's `app`, as a process that has an instance's identity.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.core.files.base import ContentFile  # noqa: E402
from django.core.files.storage import default_storage  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from app.organizations.models import ApiKey  # noqa: E402
from app.outbox import UNFINISHED  # noqa: E402
from app.validations.models import State, ValidationJob, time_ordered_id  # noqa: E402
from app.validations.tasks import run_validation  # noqa: E402

THREADS = 4
DEADLINE_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--per-second", type=float, help="an even pace; without it, as fast as THREADS can")
    parser.add_argument("--celery", metavar="TASK", help="by Celery, as this task, instead of by Cloud Tasks")
    wanted = parser.parse_args()
    body = sys.stdin.buffer.read()
    key = ApiKey.objects.get(organization__slug="bench")
    run = f"bench/{time_ordered_id()}"
    default_storage.save(run, ContentFile(body))
    enqueue = by_celery(wanted.celery) if wanted.celery else run_validation.enqueue

    def submit(number: int) -> None:
        if wanted.per_second:
            time.sleep(max(0.0, began + number / wanted.per_second - time.time()))
        now = timezone.now()
        job = ValidationJob(
            id=time_ordered_id(),
            organization_id=key.organization_id,
            api_key=key,
            validator="json-schema",
            state=State.PENDING,
            media_name=run,
            content_type="application/json",
            content_bytes=len(body),
            content_sha256="",
            created_at=now,
            # Not before the run is over: the sweep would enqueue Celery's rows to Cloud Tasks.
            sweep_at=now + timedelta(days=1),
        )
        with transaction.atomic():
            job.save(force_insert=True)
            enqueue(str(job.id))
        connection.close()  # back to the pool, as at the end of a request

    connection.close()
    began = time.time()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(submit, range(wanted.jobs)))
    enqueued = time.time() - began
    jobs = ValidationJob.objects.filter(media_name=run)
    while unfinished := jobs.filter(state__in=UNFINISHED).count():
        if time.time() - began > DEADLINE_SECONDS:
            raise TimeoutError(f"{unfinished} of {wanted.jobs} jobs are unfinished after {DEADLINE_SECONDS:.0f} s")
        time.sleep(0.05)
    rows = list(jobs.filter(verdict="PASS").values_list("created_at", "finished_at"))
    if len(rows) != wanted.jobs:
        raise RuntimeError(f"{len(rows)} of {wanted.jobs} jobs have the verdict PASS")
    pairs = [(created, finished) for created, finished in rows if finished is not None]
    seen: dict[str, Any] = {
        "enqueued_seconds": enqueued,
        "seconds": max(finished for _, finished in pairs).timestamp() - began,
        "latencies": [(finished - created).total_seconds() for created, finished in pairs],
    }
    json.dump(seen, sys.stdout)
    connection.close()
    sys.stdout.flush()
    # The pools of connections have threads, and nothing is left to do.
    os._exit(0)


def by_celery(name: str) -> Any:
    from celery_app import celery  # type: ignore[import-not-found]  # beside this file

    return lambda job_id: transaction.on_commit(lambda: celery.send_task(name, [job_id]))


if __name__ == "__main__":
    main()
