"""JobRun: one execution of a Cloud Run job for each image, waited for.

A resource of our own, because Pulumi can describe a job but not execute it. What depends on it does not change before
the execution has succeeded; a failed execution fails the update. Like every dynamic provider it is pickled, so it has
no state and imports what it uses inside its methods.
"""

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from infra.failures import Failure, told_plainly


class JobFailed(Failure):
    """The message ends with the last lines of the execution's log."""


class JobRunProvider(ResourceProvider):
    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        changed = [key for key in ("job", "image", "database") if _olds.get(key) != _news.get(key)]
        return DiffResult(changes=bool(changed), replaces=changed, delete_before_replace=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        from infra.rest import Google

        with told_plainly():
            execution = run(Google.connect(), props)
        return CreateResult(id_=execution, outs={**props, "execution": execution})


def run(google: Any, props: dict[str, Any]) -> str:
    """Execute the job once and answer with the execution's name.

    Raises:
        JobFailed: the execution did not succeed, or the job is of another image than the one meant.
    """
    from infra.rest import endpoint, wait_for

    job = f"projects/{props['project']}/locations/{props['location']}/jobs/{props['job']}"
    template = google.call("GET", f"{endpoint('run')}{job}")["template"]["template"]
    image = template["containers"][0]["image"]
    if image != props["image"]:
        raise JobFailed(f"{props['job']} is of image {image}, not of {props['image']}: somebody else changes it")
    operation = google.call("POST", f"{endpoint('run')}{job}:run", json={})

    def finished() -> dict[str, Any] | None:
        state: dict[str, Any] = google.call("GET", f"{endpoint('run')}{operation['name']}")
        return state if state.get("done") else None

    done = wait_for(finished, f"job {props['job']}", props["timeout_seconds"] + 120)
    execution = (done.get("response") or done.get("metadata") or {}).get("name", "").rpartition("/")[2]
    if "error" in done or done.get("response", {}).get("failedCount"):
        said = done.get("error", {}).get("message", "a task failed")
        lines = google.last_log_lines(
            props["project"],
            f'resource.type="cloud_run_job" AND resource.labels.job_name="{props["job"]}" '
            f'AND labels."run.googleapis.com/execution_name"="{execution}"',
        )
        raise JobFailed("\n".join([f"execution {execution} of job {props['job']} failed: {said}", *lines]))
    return str(execution)


class JobRun(Resource, module="validibot", name="JobRun"):
    """`image` and `database` are what a run is about: when one changes, the job runs again."""

    execution: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        location: str,
        job: pulumi.Input[str],
        image: pulumi.Input[str],
        database: pulumi.Input[str],
        timeout_seconds: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        inputs = {
            "project": project,
            "location": location,
            "job": job,
            "image": image,
            "database": database,
            "timeout_seconds": timeout_seconds,
            "execution": None,
        }
        super().__init__(JobRunProvider(), name, inputs, opts)
