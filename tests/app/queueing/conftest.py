import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

GOOD = {"validator": "json-schema", "document": {"id": 7}, "schema": {"required": ["id"]}, "filename": "order.json"}


@pytest.fixture
def accept(api: Client, django_capture_on_commit_callbacks: Callable[..., Any]) -> Callable[..., Any]:
    """Submit to be validated later, and commit."""

    def accept(submission: dict[str, Any] | None = None, **headers: str) -> Any:
        with django_capture_on_commit_callbacks(execute=True):
            return api.post(
                "/api/validations",
                json.dumps(submission or GOOD),
                content_type="application/json",
                headers={"prefer": "respond-async"} | {name.replace("_", "-"): text for name, text in headers.items()},
            )

    return accept
