"""Cloud Run jobs through Google's own client."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, GoogleAPICallError, NotFound
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
    kinds = ("Completed", "ResourcesAvailable", "Started", "ContainerReady")
    assert [(found.type_, found.state) for found in execution.conditions] == [(kind, SUCCEEDED) for kind in kinds]
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"task_count": -1}, r"overrides\.task_count must be 1 to 10000, got -1"),
        ({"timeout": duration_pb2.Duration(seconds=700_000)}, r"overrides\.timeout must be more than 0s and at most"),
        ({"container_overrides": [{"name": "sidecar", "args": ["x"]}]}, "the job has no container named 'sidecar'"),
        ({"container_overrides": [{"env": [{"name": "CLOUD_RUN_JOB", "value": "x"}]}]}, "reserved env names"),
    ],
)
def test_an_override_that_cannot_be_is_refused(
    region: Region, parent: str, image: str, overrides: dict[str, Any], message: str
) -> None:
    job = create_job(region, parent, image, "pass", {"max_retries": 0})

    with pytest.raises(BadRequest, match=message):
        region.client(run_v2.JobsClient).run_job(request=run_v2.RunJobRequest(name=job.name, overrides=overrides))

    assert list(region.client(run_v2.ExecutionsClient).list_executions(parent=job.name)) == []


def test_a_run_of_a_job_that_was_changed_since_it_was_read_is_refused(region: Region, parent: str, image: str) -> None:
    read = create_job(region, parent, image, "pass", {"max_retries": 0})
    jobs = region.client(run_v2.JobsClient)
    jobs.update_job(job=run_v2.Job(name=read.name, template=read.template)).result(timeout=30)

    with pytest.raises(Conflict, match=r"the etag .* is not the current one"):
        jobs.run_job(request=run_v2.RunJobRequest(name=read.name, etag=read.etag))


@pytest.mark.parametrize("field", ["start_execution_token", "run_execution_token"])
def test_a_token_in_a_job_makes_one_execution_of_that_name(region: Region, parent: str, image: str, field: str) -> None:
    template = {"template": {"containers": [{"image": image, "command": ["python", "-c"], "args": ["pass"]}]}}
    jobs = region.client(run_v2.JobsClient)

    created = jobs.create_job(parent=parent, job=run_v2.Job(template=template, **{field: "v1"}), job_id="work").result()
    jobs.update_job(job=created).result(timeout=30)

    assert created.latest_created_execution.name == "work-v1"
    executions = list(region.client(run_v2.ExecutionsClient).list_executions(parent=created.name))
    assert [execution.name for execution in executions] == [f"{created.name}/executions/work-v1"]
    if field == "run_execution_token":
        assert created.latest_created_execution.completion_status.name == "EXECUTION_SUCCEEDED"


def test_a_job_that_is_to_run_fails_with_its_execution(region: Region, parent: str, image: str) -> None:
    task = {"containers": [{"image": image, "command": ["python", "-c"], "args": ["exit(1)"]}], "max_retries": 0}
    job = run_v2.Job(template={"template": task}, run_execution_token="v1")

    with pytest.raises(GoogleAPICallError, match="The container exited with an error"):
        region.client(run_v2.JobsClient).create_job(parent=parent, job=job, job_id="work").result(timeout=30)


def test_executions_and_tasks_of_every_job_are_listed_under_a_dash(region: Region, parent: str, image: str) -> None:
    job = create_job(region, parent, image, "pass", {"max_retries": 0})
    names = [run_to_its_end(region, job.name)[0].name for _ in range(2)]
    executions, tasks = region.client(run_v2.ExecutionsClient), region.client(run_v2.TasksClient)

    assert [found.name for found in executions.list_executions(parent=f"{parent}/jobs/-")] == names[::-1]
    listed = tasks.list_tasks(parent=f"{parent}/jobs/-/executions/-")
    assert [found.execution for found in listed] == [name.rpartition("/")[2] for name in names]


def test_a_deleted_job_says_when_it_was_deleted(region: Region, parent: str, image: str) -> None:
    job = create_job(region, parent, image, "pass", {"max_retries": 0})
    jobs = region.client(run_v2.JobsClient)

    checked = jobs.delete_job(request=run_v2.DeleteJobRequest(name=job.name, validate_only=True)).result(timeout=30)
    deletion = jobs.delete_job(name=job.name)
    deleted = deletion.result(timeout=30)

    assert (checked.name, checked.delete_time) == (job.name, None)
    assert deletion.metadata.name == job.name
    assert deleted.delete_time is not None
    with pytest.raises(NotFound):
        jobs.get_job(name=job.name)


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
