"""Addresses below /internal/, on the worker only. Each names its callers; a test finds one that does not."""

from typing import Final

from django.urls import URLPattern, URLResolver, path

from app.callbacks.views import receive
from app.internal.callers import Callers
from app.internal.delivery import delivered
from app.internal.schedules import scheduled
from app.settings import env
from app.tasks import TASKS

_TASKS: Final = Callers(env.tasks_service_account)

_SCHEDULER: Final = Callers(env.scheduler_service_account)

urlpatterns: list[URLPattern | URLResolver] = [
    *(delivered(task, _TASKS) for task in TASKS),
    *scheduled(_SCHEDULER),
    # Identifies its callers itself: by a signature, or by a token of VALIDIBOT_CALLBACK_SERVICE_ACCOUNTS.
    path("callbacks/<slug:kind>/<uuid:target>", receive, name="callbacks"),
]
