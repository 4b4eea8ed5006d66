"""Runs against a real Postgres: the same decisions, stored, whatever the queue does."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.organizations.models import ApiKey
from app.simulations import jobs
from app.simulations.models import SimulationJob
from app.workflows import runs, versions
from app.workflows.definitions import Definition
from app.workflows.models import WorkflowRun, WorkflowStepDefinition, WorkflowVersion
from tests.app.workflows.plans import Planned, expected, plans
from tests.app.workflows.queue import Queue, deliver

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
    assert check.outputs["findings"][0]["code"] == "json-schema/type"


def test_a_condition_that_cannot_be_evaluated_fails_its_step(key: ApiKey, queue: Queue) -> None:
    steps = [validator("a", condition="inputs.absent"), validator("b", condition="inputs.document > 9")]

    run = runs.start(version(key, *steps), {"document": 7})
    queue.until_empty()

    assert states(run) == {"a": "FAILED", "b": "SKIPPED"}
    assert run.steps.get(step__key="a").problem["code"] == "bad-condition"


def _compute(random: Random, plan: dict[str, Planned]) -> bool:
    """Report on what waits, now and then twice or long after its end."""
    waiting = list(SimulationJob.objects.filter(state="PENDING").select_related("step_run__step"))
    for job in waiting:
        assert job.step_run is not None
        planned = plan[job.step_run.step.key]
        failed = jobs.Report(status="FAILED", code="crashed", detail="again", is_retryable=True)
        report = failed if job.attempt <= planned.failures else OK
        for _ in range(random.choice([1, 1, 2])):
            jobs.finish(job.id, report)
    return bool(waiting)


@given(plan=plans(max_steps=7), seed=st.integers(0, 2**32))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_duplicate_and_reordered_deliveries_come_to_what_the_sequential_model_says(
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

    while queue.until_empty(random) or _compute(random, {planned.key: planned for planned in plan}):
        pass

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
