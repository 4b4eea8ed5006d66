"""Every task that Cloud Tasks delivers: what has an address below `/internal/`, and what can be requeued."""

from typing import Any, Final, cast

from app.tasking import CloudTask
from app.validations.tasks import run_validation
from app.webhooks.tasks import deliver_webhook
from app.workflows.tasks import advance_workflow, run_step

TASKS: Final = cast("tuple[CloudTask[Any, Any], ...]", (run_validation, deliver_webhook, advance_workflow, run_step))
