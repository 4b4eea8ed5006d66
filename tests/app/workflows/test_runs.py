"""Runs against a real Postgres: the same decisions, stored, whatever the queue does."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.leases import LeaseLost
from app.organizations.models import ApiKey
from app.outbox import Deadline
from app.simulations import jobs
from app.simulations import upkeep as simulations
from app.simulations.models import SimulationJob
from app.validations.engines.pool import Pool
from app.workflows import attempts, runs, upkeep, versions, work
from app.workflows.definitions import Definition
from app.workflows.models import WorkflowRun, WorkflowStepDefinition, WorkflowStepRun, WorkflowVersion
from app.workflows.tasks import advance_workflow, run_step
from app.workflows.work import Done
from tests.app.workflows.plans import Planned, expected, plans
from tests.app.workflows.queue import Queue, deliver

FAILED = jobs.Report(status="FAILED", code="crashed", detail="again", is_retryable=True)
OK = jobs.Report(status="SUCCESS", output_envelope="outputs/1", output_sha256="0" * 64)


def simulation(key: str, *depends_on: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "type": "SIMULATION",
        "depends_on": list(depends_on),
        "config": {"simulation": "FMI"},
    } | more


def validator(key: str, *depends_on: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "type": "VALIDATOR",
        "depends_on": list(depends_on),
        "inputs": {"document": {"ref": "/inputs/document"}},
        "config": {"validator": "json-schema", "schema": {"type": "integer"}},
    } | more


def version(key: ApiKey, *steps: dict[str, Any], name: str = "w") -> WorkflowVersion:
    return versions.create(key, name, Definition.model_validate({"steps": steps}))


def states(run: WorkflowRun) -> dict[str, str]:
    return dict(run.steps.values_list("step__key", "state"))


def test_a_run_fans_out_and_in_and_hands_results_on(key: ApiKey, queue: Queue) -> None:
    steps = [
        validator("first"),
        *(validator(f"branch_{n}", "first") for n in range(5)),
        validator(
            "join",
            *(f"branch_{n}" for n in range(5)),
            condition="steps.branch_3.outputs.verdict == 'PASS'",
            inputs={"document": {"ref": "/steps/first/outputs/errors"}},
        ),
    ]

    run = runs.start(version(key, *steps), {"document": 7})
    queue.until_empty()

    run.refresh_from_db()
    assert run.state == "SUCCESS"
    assert set(states(run).values()) == {"SUCCESS"}
    assert run.steps.get(step__key="join").outputs == {
        "verdict": "PASS",
        "errors": 0,
        "warnings": 0,
        "infos": 0,
        "findings": [],
        "findings_truncated": False,
    }


def test_a_document_that_fails_its_validator_fails_the_run_and_skips_what_follows(key: ApiKey, queue: Queue) -> None:
    steps = [validator("check"), validator("after", "check"), validator("report", "check", run_when="ALL_FINISHED")]

    run = runs.start(version(key, *steps), {"document": []})
    queue.until_empty()

    run.refresh_from_db()
    assert run.state == "FAILED"
    assert states(run) == {"check": "FAILED", "after": "SKIPPED", "report": "FAILED"}
    check = run.steps.get(step__key="check")
    assert check.problem == {"code": "verdict-fail", "detail": "the document has 1 errors"}
    assert (check.outputs or {})["findings"][0]["code"] == "json-schema/type"


def test_a_condition_that_cannot_be_evaluated_fails_its_step(key: ApiKey, queue: Queue) -> None:
    steps = [validator("a", condition="inputs.absent"), validator("b", condition="inputs.document > 9")]

    run = runs.start(version(key, *steps), {"document": 7})
    queue.until_empty()

    assert states(run) == {"a": "FAILED", "b": "SKIPPED"}
    assert run.steps.get(step__key="a").problem_code == "bad-condition"


def _compute(random: Random, plan: dict[str, Planned]) -> bool:
    """Report on what waits, now and then twice or long after its end."""
    waiting = list(SimulationJob.objects.filter(state="PENDING").select_related("step_run__step"))
    for job in waiting:
        assert job.step_run is not None
        planned = plan[job.step_run.step.key]
        report = FAILED if job.attempt <= planned.failures else OK
        for _ in range(random.choice([1, 1, 2])):
            jobs.finish(job.id, report)
    return bool(waiting)


def _kill_a_worker(random: Random, run: WorkflowRun) -> None:
    """It had begun an attempt. Its lease ends by itself."""
    begun = run.steps.filter(state="PENDING", is_dispatched=True)
    if begun and random.random() < 0.3:
        dead = WorkflowStepRun.objects.lease(random.choice(begun).id, timedelta(seconds=-1))
        dead.while_held(state="RUNNING", starts=dead.starts + 1, due_at=timezone.now())


def _let_hours_pass(queue: Queue) -> None:
    late = timezone.now() - timedelta(hours=3)
    WorkflowRun.objects.filter(needs_advance_since__isnull=False).update(needs_advance_since=late)
    WorkflowStepRun.objects.filter(due_at__isnull=False).update(due_at=late)
    queue.tasks.forget_names()


@given(plan=plans(max_steps=7), seed=st.integers(0, 2**32))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_lost_duplicate_and_reordered_deliveries_and_dead_workers_come_to_what_the_sequential_model_says(
    key: ApiKey, queue: Queue, plan: list[Planned], seed: int
) -> None:
    random = Random(seed)
    condition = {True: "inputs.yes", False: "inputs.no", None: "inputs.absent"}
    steps = [
        simulation(
            planned.key,
            *planned.depends_on,
            run_when=planned.run_when.value,
            may_fail=planned.may_fail,
            condition=condition[planned.condition],
            retry={"max_attempts": planned.max_attempts, "backoff_seconds": 0},
        )
        for planned in plan
    ]
    run = runs.start(version(key, *steps, name=uuid4().hex), {"yes": True, "no": False})

    for _ in range(300):
        if run.is_final:
            break
        _kill_a_worker(random, run)
        moved = queue.until_empty(random)
        moved += _compute(random, {planned.key: planned for planned in plan})
        if not moved:
            _let_hours_pass(queue)
            upkeep.sweep(Deadline.after(10))
        run.refresh_from_db()

    model = expected(plan)
    assert run.state == model.run.value
    assert states(run) == {name: state.value for name, state in model.states.items()}
    assert dict(run.steps.values_list("step__key", "attempt")) == model.attempts
    jobs_of = Counter(SimulationJob.objects.filter(step_run__run=run).values_list("step_run__step__key", flat=True))
    ran = {name for name, planned in ((planned.key, planned) for planned in plan) if planned.condition}
    assert jobs_of == {
        name: attempts
        for name, attempts in model.attempts.items()
        if name in ran and model.states[name].value != "SKIPPED"
    }


def test_many_threads_that_deliver_everything_have_each_effect_once(key: ApiKey, queue: Queue) -> None:
    """Eight deliveries of every task, at the same moment: one attempt per step, one advance per change."""
    steps = [simulation("first"), *(simulation(f"branch_{n}", "first") for n in range(4))]
    steps.append(simulation("join", *(f"branch_{n}" for n in range(4))))
    run = runs.start(version(key, *steps), {})

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            while tasks := queue.take():
                together = threading.Barrier(8)

                def storm(task: Any, together: threading.Barrier = together) -> None:
                    together.wait(timeout=30)
                    while not deliver(task):
                        pass
                    connection.close()

                for task in tasks:
                    list(threads.map(storm, [task] * 8))
            waiting = list(SimulationJob.objects.filter(state="PENDING"))
            if not waiting:
                break

            def call_back(job: SimulationJob) -> None:
                jobs.finish(job.id, OK)
                connection.close()

            list(threads.map(call_back, waiting * 4))

    run.refresh_from_db()
    assert run.state == "SUCCESS"
    assert set(run.steps.values_list("state", "attempt", "starts")) == {("SUCCESS", 1, 1)}
    assert SimulationJob.objects.filter(step_run__run=run, state="SUCCESS").count() == 6
    assert SimulationJob.objects.count() == 6


def test_a_version_and_its_steps_never_change(key: ApiKey, queue: Queue) -> None:
    version(key, simulation("a"))

    with pytest.raises(IntegrityError), transaction.atomic():
        WorkflowStepDefinition.objects.update(key="b")
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkflowVersion.objects.update(number=2)


def test_a_failed_attempt_rests_and_is_enqueued_for_the_end_of_its_rest(key: ApiKey, queue: Queue) -> None:
    step = simulation("a", retry={"max_attempts": 2, "backoff_seconds": 60})
    run = runs.start(version(key, step), {})
    queue.until_empty()

    jobs.finish(SimulationJob.objects.get().id, FAILED)

    waiting = run.steps.get()
    (task,) = queue.take()
    assert (waiting.state, waiting.attempt, waiting.problem) == ("PENDING", 2, {"code": "crashed", "detail": "again"})
    assert task.schedule_time == waiting.not_before
    assert waiting.not_before is not None
    assert timedelta(seconds=55) < waiting.not_before - timezone.now() < timedelta(seconds=60)
    deliver(task)  # too early: a duplicate of the attempt before
    assert SimulationJob.objects.count() == 1
    WorkflowStepRun.objects.update(not_before=timezone.now())
    deliver(task)
    assert [job.attempt for job in SimulationJob.objects.order_by("attempt")] == [1, 2]


def test_a_worker_that_died_is_taken_over_when_its_lease_has_ended(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a")), {})
    deliver(queue.take()[0])
    (task,) = queue.take()
    dead = WorkflowStepRun.objects.lease(run.steps.get().id, timedelta(seconds=60))
    dead.while_held(state="RUNNING", starts=1, due_at=dead.lease_expires_at)

    while_it_lives = deliver(task)
    WorkflowStepRun.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    afterwards = deliver(task)

    assert (while_it_lives, afterwards) == (False, True)
    assert run.steps.values_list("state", "attempt", "starts").get() == ("WAITING", 1, 2)
    with pytest.raises(LeaseLost):
        dead.while_held(state="FAILED")


def test_a_step_that_kills_its_workers_fails_in_the_end(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a")), {})
    deliver(queue.take()[0])
    WorkflowStepRun.objects.update(starts=attempts.MAX_STARTS)

    queue.until_empty()

    run.refresh_from_db()
    assert (run.state, run.steps.get().problem_code) == ("FAILED", "worker-lost")


def test_a_result_that_comes_after_a_cancellation_is_thrown_away(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a"), simulation("b")), {})
    queue.until_empty()
    job, other = SimulationJob.objects.all()
    jobs.finish(job.id, OK)

    runs.cancel(run.id)
    with pytest.raises(jobs.AlreadyEnded):
        jobs.finish(other.id, OK)
    queue.until_empty()

    run.refresh_from_db()
    assert run.state == "CANCELLED"
    assert sorted(states(run).values()) == ["CANCELLED", "SUCCESS"]
    assert set(SimulationJob.objects.values_list("state", flat=True)) == {"SUCCESS", "CANCELLED"}


def test_a_worker_of_a_cancelled_run_writes_nothing(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a")), {})
    deliver(queue.take()[0])
    with WorkflowStepRun.objects.leased(run.steps.get().id, timedelta(seconds=60)) as step_run:
        runs.cancel(run.id)

        with pytest.raises(LeaseLost):
            attempts._store(step_run, Done(outputs={"late": True}))

    assert run.steps.values_list("state", "outputs").get() == ("CANCELLED", None)


@pytest.mark.parametrize("lost", ["advance", "step", "advance after a step"])
def test_a_task_that_is_lost_on_its_way_is_enqueued_by_the_sweep(key: ApiKey, queue: Queue, lost: str) -> None:
    run = runs.start(version(key, validator("a"), validator("b", "a")), {"document": 1})
    for _ in range({"advance": 0, "step": 1, "advance after a step": 2}[lost]):
        deliver(queue.take()[0])
    queue.take()  # and nobody delivers it

    nothing_yet = upkeep.sweep(Deadline.after(10))
    late = timezone.now() - runs.PICKED_UP_WITHIN - timedelta(seconds=1)
    WorkflowRun.objects.filter(needs_advance_since__isnull=False).update(needs_advance_since=late)
    WorkflowStepRun.objects.filter(due_at__isnull=False).update(due_at=late)
    found = upkeep.sweep(Deadline.after(10))
    again = upkeep.sweep(Deadline.after(10))
    queue.until_empty()

    run.refresh_from_db()
    assert nothing_yet == again == {"advances": 0, "steps": 0}
    assert found == ({"advances": 0, "steps": 1} if lost == "step" else {"advances": 1, "steps": 0})
    assert run.state == "SUCCESS"


def test_the_sweep_reads_only_what_is_due(key: ApiKey, queue: Queue) -> None:
    for statement, index in ((upkeep.RUNS, "workflowrun_needs_advance"), (upkeep.STEPS, "workflowsteprun_due")):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"EXPLAIN {statement}", [120, 200])
            plan = "\n".join(row[0] for row in cursor.fetchall())

        assert index in plan


def test_a_simulation_that_never_calls_back_times_out(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a")), {})
    queue.until_empty()

    early = jobs.reap()
    SimulationJob.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))
    counts = simulations.reap(Deadline.after(10))
    queue.until_empty()

    run.refresh_from_db()
    assert (early, counts) == (0, {"simulations reaped": 1})
    assert (run.state, run.steps.get().problem_code) == ("FAILED", "timed-out")
    assert SimulationJob.objects.get().state == "FAILED"


def test_a_simulation_whose_output_is_found_without_a_callback_succeeds(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a")), {})
    queue.until_empty()
    SimulationJob.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))

    jobs.reap(lambda job: OK)
    queue.until_empty()

    run.refresh_from_db()
    assert run.state == "SUCCESS"
    assert (run.steps.get().outputs or {})["output_envelope"] == "outputs/1"


def test_a_step_whose_job_is_gone_does_not_wait_for_ever(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, simulation("a")), {})
    queue.until_empty()
    SimulationJob.objects.all().delete()
    WorkflowStepRun.objects.update(due_at=timezone.now() - timedelta(minutes=11))

    counts = upkeep.reap(Deadline.after(10))
    queue.until_empty()

    run.refresh_from_db()
    assert (counts, run.state) == ({"steps timed out": 1}, "FAILED")


def test_a_replay_shows_results_of_copied_steps_to_the_ones_that_run_again(key: ApiKey, queue: Queue) -> None:
    steps = [simulation("a"), simulation("b", "a", condition="steps.a.outputs.output_sha256.startsWith('0')")]
    run = runs.start(version(key, *steps), {})
    queue.until_empty()
    jobs.finish(SimulationJob.objects.get(state="PENDING").id, OK)
    queue.until_empty()
    jobs.finish(SimulationJob.objects.get(state="PENDING").id, jobs.Report(status="FAILED"))
    queue.until_empty()

    replayed = runs.replay(WorkflowRun.objects.get(id=run.id))
    queue.until_empty()
    jobs.finish(SimulationJob.objects.get(state="PENDING").id, OK)
    queue.until_empty()

    replayed.refresh_from_db()
    assert (replayed.state, states(replayed)) == ("SUCCESS", {"a": "SUCCESS", "b": "SUCCESS"})
    assert states(run) == {"a": "SUCCESS", "b": "FAILED"}
    assert SimulationJob.objects.count() == 3


def test_the_result_of_a_task_is_read_from_its_row(key: ApiKey, queue: Queue) -> None:
    run = runs.start(version(key, validator("a")), {"document": []})
    before = advance_workflow.get_result(f"advance-workflow/{run.id}").status
    queue.until_empty()

    ended = advance_workflow.get_result(f"advance-workflow/{run.id}")
    step = run_step.get_result(f"run-step/{run.steps.get().id}")

    assert (before, ended.status, step.status) == ("READY", "FAILED", "FAILED")
    assert step.errors[0].traceback == "the document has 1 errors"


@pytest.mark.parametrize("change", ["advance", "cancel", "store", "finish_waiting"])
def test_every_change_of_a_run_waits_for_its_lock(key: ApiKey, queue: Queue, change: str) -> None:
    run = runs.start(version(key, simulation("a"), simulation("b")), {})
    deliver(queue.take()[0])
    waiting, leased = run.steps.all()
    deliver(next(task for task in queue.take() if str(waiting.id) in task.url))
    leased = WorkflowStepRun.objects.lease(leased.id, timedelta(seconds=60))
    changes: dict[str, Callable[[], Any]] = {
        "advance": lambda: runs.advance(run.id),
        "cancel": lambda: runs.cancel(run.id),
        "store": lambda: attempts._store(leased, Done(outputs={})),
        "finish_waiting": lambda: attempts.finish_waiting(run.id, waiting.id, 1, Done(outputs={})),
    }

    def attempt() -> str:
        try:
            with transaction.atomic():
                connection.cursor().execute("SET LOCAL lock_timeout = '100ms'")
                changes[change]()
        except OperationalError as error:
            return str(error)
        finally:
            connection.close()
        return "did not wait"

    with ThreadPoolExecutor(1) as other, runs.locked(run.id):
        answer = other.submit(attempt).result(timeout=30)

    assert "lock timeout" in answer
    assert "workflows_workflowrun" in answer


def test_a_step_that_finds_every_validator_at_work_comes_back_and_counts_nothing(
    key: ApiKey, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.start(version(key, validator("a")), {"document": 1})
    deliver(queue.take()[0])
    (task,) = queue.take()
    full = Pool(0, patience=timedelta(0))

    with monkeypatch.context() as patched:
        patched.setattr(work, "pool", lambda: full)
        at_work = [deliver(task) for _ in range(attempts.MAX_STARTS + 1)]
    before = run.steps.values_list("state", "attempt", "starts").get()
    afterwards = deliver(task)

    assert at_work == [False] * (attempts.MAX_STARTS + 1)
    assert before == ("PENDING", 1, 0)
    assert afterwards
    assert states(run) == {"a": "SUCCESS"}


def test_an_error_that_nobody_foresaw_is_an_attempt_that_failed(
    key: ApiKey, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Pool:
        raise ZeroDivisionError("with a secret in it")

    monkeypatch.setattr(work, "pool", broken)
    run = runs.start(version(key, validator("a", retry={"max_attempts": 2, "backoff_seconds": 0})), {"document": 1})
    queue.until_empty()

    run.refresh_from_db()
    step_run = run.steps.get()
    assert (run.state, step_run.attempt) == ("FAILED", 2)
    assert step_run.problem == {"code": "internal-error", "detail": "ZeroDivisionError; the error is logged"}
