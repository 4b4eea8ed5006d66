"""A backend of `django-tasks` over Cloud Tasks. It knows Django, `django-tasks` and HTTP, and nothing of what is run.

A task carries one id and no data: it is a POST to `<url>/internal/<name of the function>/<id>` with an OIDC token of
one service account. What the handler does, and whether a second delivery does harm, is the handler's affair; names are
deterministic, so that Cloud Tasks itself refuses the second task of one enqueue.

    TASKS = {
        "default": {
            "BACKEND": "app.tasking.backends.CloudTasksBackend",
            "QUEUES": ["validations"],
            "OPTIONS": {
                "client": "app.cloud.tasks.client",
                "url": "https://worker.example",
                "service_account": "tasks@example.iam.gserviceaccount.com",
                "dispatch_deadline_seconds": {"validations": 600},
            },
        }
    }
"""

from app.tasking.backends import CloudTasksBackend, ImmediateBackend, Submission
from app.tasking.client import HttpTask, QueueFailure, TaskClient, TaskExists
from app.tasking.tasks import CloudTask, Outcome, TargetFailed, TryLater, occurrence, submit

__all__ = [
    "CloudTask",
    "CloudTasksBackend",
    "HttpTask",
    "ImmediateBackend",
    "Outcome",
    "QueueFailure",
    "Submission",
    "TargetFailed",
    "TaskClient",
    "TaskExists",
    "TryLater",
    "occurrence",
    "submit",
]
