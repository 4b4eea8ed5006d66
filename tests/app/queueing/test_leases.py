"""Leases: one worker at a time, and only its result counts."""

import threading
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from app.leases import LeaseHeld, LeaseLost, RowGone
from app.organizations.models import Organization
from app.validations.models import State, ValidationJob

MINUTE = timedelta(minutes=1)


def job_of(organization: Organization) -> ValidationJob:
    return ValidationJob.objects.create(
        organization=organization,
        validator="cel",
        media_name="submissions/x",
        content_type="application/json",
        content_bytes=1,
        content_sha256="0" * 64,
        sweep_at=timezone.now() + MINUTE,
    )


def end(job: ValidationJob) -> None:
    job.while_held(state=State.FAILED, finished_at=timezone.now(), **ValidationJob.NOT_LEASED)


def test_a_lease_is_taken_once_and_the_second_is_told_until_when(organization: Organization) -> None:
    job = job_of(organization)

    with ValidationJob.objects.leased(job.pk, MINUTE) as held:
        with pytest.raises(LeaseHeld) as second, ValidationJob.objects.leased(job.pk, MINUTE):
            pass

        assert (held.state, held.attempts, held.sweep_at) == (State.RUNNING, 1, None)
        assert 55 <= second.value.seconds_left <= 61


def test_a_finished_row_comes_without_a_lease(organization: Organization) -> None:
    job = job_of(organization)
    with ValidationJob.objects.leased(job.pk, MINUTE) as held:
        end(held)

    with ValidationJob.objects.leased(job.pk, MINUTE) as finished:
        assert finished.is_finished
        assert (finished.lease_token, finished.attempts) == (None, 1)


def test_a_lease_ends_with_a_block_that_fails(organization: Organization) -> None:
    job = job_of(organization)

    with pytest.raises(ZeroDivisionError), ValidationJob.objects.leased(job.pk, MINUTE):
        raise ZeroDivisionError

    job.refresh_from_db()
    assert (job.state, job.lease_token, job.lease_expires_at) == (State.PENDING, None, None)
    assert job.sweep_at is not None


def test_a_dead_lease_is_taken_over_and_the_dead_writes_nothing(organization: Organization) -> None:
    job = job_of(organization)
    with ValidationJob.objects.leased(job.pk, timedelta(seconds=-1)) as dead:
        with ValidationJob.objects.leased(job.pk, MINUTE) as living:
            with pytest.raises(LeaseLost):
                end(dead)
            with pytest.raises(LeaseLost):
                dead.while_held(lease_expires_at=timezone.now() + MINUTE)
            assert ValidationJob.objects.get().state == State.RUNNING

            end(living)

    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.FAILED, 2)


def test_the_dead_does_not_give_back_the_lease_of_the_living(organization: Organization) -> None:
    job = job_of(organization)
    with ValidationJob.objects.leased(job.pk, timedelta(seconds=-1)):
        ValidationJob.objects.lease(job.pk, MINUTE)

    assert ValidationJob.objects.get().state == State.RUNNING


def test_a_row_that_does_not_exist_is_gone(db: None) -> None:
    with pytest.raises(RowGone), ValidationJob.objects.leased(UUID(int=1), MINUTE):
        pass


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_at_once_one_gets_the_lease() -> None:
    organization = Organization.objects.create(slug="demo", name="Demo", data_region="AU")
    job = job_of(organization)
    start = threading.Barrier(6)
    got: list[str] = []

    def work() -> None:
        start.wait(timeout=10)
        try:
            ValidationJob.objects.lease(job.pk, MINUTE)
            got.append("lease")
        except LeaseHeld:
            got.append("held")
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=20)

    assert sorted(got) == ["held"] * 5 + ["lease"]
    assert ValidationJob.objects.get().attempts == 1
