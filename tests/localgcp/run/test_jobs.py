"""Cloud Run jobs through Google's own client."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import run_v2, tasks_v2
from google.protobuf import duration_pb2

from tests.localgcp.fixtures import Region
from tests.localgcp.run.test_services import entries, wait_for

SUCCEEDED = run_v2.Condition.State.CONDITION_SUCCEEDED
FAILED = run_v2.Condition.State.CONDITION_FAILED


def create_job(region: Region, parent: str, image: str, code: str, task: dict[str, Any], **template: Any) -> run_v2.Job:
    container = {"image": image, "command": ["python", "-c"], "args": [code]}
    job = run_v2.Job(template={"template": {"containers": [container], **task}, **template})
    jobs = region.client(run_v2.JobsClient)
    created: run_v2.Job = jobs.create_job(parent=parent, job=job, job_id="work").result(timeout=30)
    return created


def run_to_its_end(region: Region, name: str, **overrides: Any) -> tuple[run_v2.Execution, str | None]:
    """The execution when it is over, and the operation's error."""
    request = run_v2.RunJobRequest(name=name, overrides=overrides)
    operation = region.client(run_v2.JobsClient).run_job(request=request)
    execution_name = operation.metadata.name
    error = None
    try:
        operation.result(timeout=60)
    except GoogleAPICallError as failed:
        error = failed.message
    return region.client(run_v2.ExecutionsClient).get_execution(name=execution_name), error


def test_an_execution_runs_its_tasks_each_with_its_index(region: Region, parent: str, project: str, image: str) -> None:
    code = "import os; print('task', os.environ['CLOUD_RUN_TASK_INDEX'], 'of', os.environ['CLOUD_RUN_TASK_COUNT'])"
    job = create_job(region, parent, image, code, {"max_retries": 0}, task_count=3, parallelism=2)

    execution, error = run_to_its_end(region, job.name)

    assert error is None
    assert (execution.task_count, execution.succeeded_count, execution.failed_count) == (3, 3, 0)
    assert execution.conditions[0].state == SUCCEEDED
    tasks = list(region.client(run_v2.TasksClient).list_tasks(parent=execution.name))
    assert sorted(task.index for task in tasks) == [0, 1, 2]
    assert {task.last_attempt_result.exit_code for task in tasks} == {0}
    short = execution.name.rpartition("/")[2]
    wait_for(lambda: len(entries(region, project, f'labels."run.googleapis.com/execution_name"={short}')) == 3)
    lines = {entry["textPayload"] for entry in entries(region, project, "resource.type=cloud_run_job")}
    assert lines == {"task 0 of 3", "task 1 of 3", "task 2 of 3"}
    latest = region.client(run_v2.JobsClient).get_job(name=job.name)
    assert latest.execution_count == 1
    assert latest.latest_created_execution.completion_status.name == "EXECUTION_SUCCEEDED"


def test_a_task_is_tried_again_and_then_the_execution_has_failed(
    region: Region, parent: str, project: str, image: str
) -> None:
    code = "import os; print('attempt', os.environ['CLOUD_RUN_TASK_ATTEMPT'], flush=True); raise SystemExit(7)"
    job = create_job(region, parent, image, code, {"max_retries": 2})

    execution, error = run_to_its_end(region, job.name)

    assert error is not None
    assert error.endswith("failed with message: The container exited with an error.")
    assert (execution.failed_count, execution.retried_count) == (1, 2)
    assert execution.conditions[0].state == FAILED
    task = next(iter(region.client(run_v2.TasksClient).list_tasks(parent=execution.name)))
    assert task.last_attempt_result.exit_code == 7
    wait_for(lambda: len(entries(region, project, "resource.type=cloud_run_job")) == 3)
    lines = [entry["textPayload"] for entry in entries(region, project, "resource.type=cloud_run_job")]
    assert lines == ["attempt 0", "attempt 1", "attempt 2"]


def test_a_run_may_override_arguments_environment_and_tasks(
    region: Region, parent: str, project: str, image: str
) -> None:
    job = create_job(region, parent, image, "raise SystemExit(1)", {"max_retries": 0})
    code = "import os; print('colour', os.environ['COLOUR'])"

    execution, error = run_to_its_end(
        region,
        job.name,
        container_overrides=[{"args": [code], "env": [{"name": "COLOUR", "value": "blue"}]}],
        task_count=2,
    )

    assert error is None
    assert (execution.task_count, execution.succeeded_count) == (2, 2)
    wait_for(lambda: len(entries(region, project, 'textPayload="colour blue"')) == 2)


def test_a_task_that_takes_too_long_is_ended(region: Region, parent: str, image: str) -> None:
    task = {"max_retries": 0, "timeout": duration_pb2.Duration(seconds=1)}
    job = create_job(region, parent, image, "import time; time.sleep(60)", task)

    execution, error = run_to_its_end(region, job.name)

    assert error is not None
    assert error.endswith("The configured timeout was reached.")
    assert execution.failed_count == 1


def test_a_cancelled_execution_ends_its_tasks(region: Region, parent: str, project: str, image: str) -> None:
    code = "import time; print('started', flush=True); time.sleep(60)"
    job = create_job(region, parent, image, code, {"max_retries": 3})
    operation = region.client(run_v2.JobsClient).run_job(name=job.name)
    wait_for(lambda: len(entries(region, project, "textPayload=started")) == 1)
    executions = region.client(run_v2.ExecutionsClient)

    executions.cancel_execution(name=operation.metadata.name).result(timeout=30)

    execution = executions.get_execution(name=operation.metadata.name)
    assert (execution.cancelled_count, execution.running_count) == (1, 0)
    assert execution.conditions[0].execution_reason.name == "CANCELLED"
    with pytest.raises(GoogleAPICallError, match=r"cancelled"):
        operation.result(timeout=30)


def test_a_run_is_answered_while_the_tasks_still_run(region: Region, parent: str, image: str) -> None:
    job = create_job(region, parent, image, "import time; time.sleep(30)", {"max_retries": 0})

    with ThreadPoolExecutor(1) as pool:
        operation = pool.submit(region.client(run_v2.JobsClient).run_job, name=job.name).result(timeout=5)

    assert not operation.done()
    region.client(run_v2.ExecutionsClient).cancel_execution(name=operation.metadata.name)


def test_overrides_need_a_permission_of_their_own(region: Region, parent: str, project: str, image: str) -> None:
    job = create_job(region, parent, image, "pass", {"max_retries": 0})
    account = region.account(project, "invoker", "roles/run.invoker")
    jobs = region.client(run_v2.JobsClient, region.credentials(account.email))

    assert jobs.run_job(name=job.name).metadata.name
    with pytest.raises(GoogleAPICallError, match=r"run\.jobs\.runWithOverrides"):
        jobs.run_job(request=run_v2.RunJobRequest(name=job.name, overrides={"task_count": 2}))


def test_a_task_may_run_a_job_with_an_oauth_token(region: Region, parent: str, project: str, image: str) -> None:
    job = create_job(region, parent, image, "print('by a task')", {"max_retries": 0})
    runner = region.account(project, "runner", "roles/run.developer")
    tasks = region.client(tasks_v2.CloudTasksClient)
    queue = tasks.create_queue(parent=parent, queue={"name": f"{parent}/queues/jobs"}).name
    request = {
        "url": f"https://run.googleapis.com/v2/{job.name}:run",
        "oauth_token": {"service_account_email": runner.email},
    }

    tasks.create_task(parent=queue, task={"http_request": request})

    executions = region.client(run_v2.ExecutionsClient)
    wait_for(lambda: [found.succeeded_count for found in executions.list_executions(parent=job.name)] == [1])
    wait_for(lambda: list(tasks.list_tasks(parent=queue)) == [])
