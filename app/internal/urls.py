"""Addresses below /internal/, on the worker only. Each names its callers; a test finds one that does not."""

from typing import Final

from django.urls import URLPattern, URLResolver

from app.internal.callers import Callers
from app.internal.delivery import delivered
from app.settings import env
from app.tasks import TASKS

_TASKS: Final = Callers(env.tasks_service_account)

urlpatterns: list[URLPattern | URLResolver] = [delivered(task, _TASKS) for task in TASKS]
