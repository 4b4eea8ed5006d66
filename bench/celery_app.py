"""Celery's side of the comparison: the same validation as a Celery task, in the application's own environment.

Not imported by anything of ours: `bench.queueing` runs this file, with Celery on its path. Two bodies: `validate` is
what one would write with Celery, and gives no promise about a second delivery; `run_validation` is our task's function
with its lease.
"""

import os
import sys
from typing import Any
from uuid import UUID

sys.path.append(os.environ["BENCH_CELERY"])

import django

django.setup()

from celery import Celery  # type: ignore[import-not-found]  # noqa: E402  # the line above finds it
from django.core.files.storage import default_storage  # noqa: E402
from django.db import transaction  # noqa: E402

from app.validations import results, tasks  # noqa: E402
from app.validations.models import Finding, State, ValidationJob  # noqa: E402
from app.validations.sandbox import pool  # noqa: E402

celery: Any = Celery("bench", broker=os.environ["BENCH_BROKER"])
celery.conf.update(
    task_ignore_result=True,
    # A task whose worker dies is run again: without these two, Celery loses it.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@celery.task(name="validate")  # type: ignore[untyped-decorator, unused-ignore]
def validate(job_id: str) -> None:
    job = ValidationJob.objects.get(pk=UUID(job_id))
    with default_storage.open(job.media_name) as stored:
        body = stored.read()
    found = pool().run(body, job.content_type)
    with transaction.atomic():
        columns = results.columns_of(found) | ValidationJob.NOT_LEASED
        ValidationJob.objects.filter(pk=job.pk, state=State.PENDING).update(**columns)
        Finding.objects.bulk_create(results.findings_of(job, found))
        results.announce_end(job)


@celery.task(name="run_validation")  # type: ignore[untyped-decorator, unused-ignore]
def run_validation(job_id: str) -> None:
    tasks.run_validation.call(job_id)


if __name__ == "__main__":
    celery.worker_main(["worker", "--loglevel=WARNING", f"--concurrency={os.environ['BENCH_PROCESSES']}"])
