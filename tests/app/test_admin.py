"""The admin, as an operator uses it: every list and page of every model, and what its forms refuse."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from app.dead_letters.models import DeadLetter
from app.dead_letters.models import State as LetterState
from app.organizations.models import ApiKey, Organization, Scope
from app.simulations.models import SimulationJob, SimulationKind
from app.validations.engines.results import Validator
from app.validations.models import Finding, ValidationJob
from app.webhooks.models import WebhookDelivery, WebhookEndpoint
from app.workflows import runs, versions
from app.workflows.definitions import Definition
from app.workflows.models import WorkflowDefinition, WorkflowRun

Make = Callable[[int], None]


@pytest.fixture
def browser(db: None) -> Client:
    User.objects.create_superuser("root", password="a-long-enough-password")
    client = Client(headers={"host": "au.validibot.com", "x-forwarded-proto": "https"})
    assert client.login(username="root", password="a-long-enough-password")
    return client


@pytest.fixture
def make(db: None, django_user_model: Any) -> Make:
    """One row more of everything, each of an organisation of its own."""

    def make(number: int) -> None:
        organization = Organization.objects.create(slug=f"o{number}", name="O", data_region="AU")
        key = ApiKey.objects.create(organization=organization, sha256=f"{number:064x}")
        job = ValidationJob.objects.create(
            organization=organization,
            api_key=key,
            validator=Validator.CEL,
            media_name=f"m{number}",
            content_type="application/json",
            content_bytes=1,
            content_sha256="0" * 64,
            sweep_at=timezone.now(),
            submission_expires_at=timezone.now(),
        )
        Finding.objects.create(job=job, position=0, severity="ERROR", code="c", message="m")
        endpoint = WebhookEndpoint.objects.create(organization=organization, url="https://hooks.example.com/")
        WebhookDelivery.objects.create(
            endpoint=endpoint, event="e", message_id="m", payload={}, sweep_at=timezone.now()
        )
        DeadLetter.objects.create(
            queue="validations", task_name=f"t{number}", route="run-validation", task_id=str(job.id), attempts=5,
            error_type="E",
        )  # fmt: skip
        steps = [{"key": f"s{n}", "type": "ACTION", "config": {"action": "CREDENTIAL"}} for n in range(number + 1)]
        version = versions.create(key, "w", Definition.model_validate({"steps": steps}))
        run = runs.start(version, {}, api_key=key)
        SimulationJob.objects.create(
            organization=organization,
            step_run=run.steps.first(),
            kind=SimulationKind.FMI,
            deadline_at=timezone.now() + timedelta(hours=1),
        )
        django_user_model.objects.create_user(f"u{number}")

    return make


MODELS = (
    Organization, ApiKey, ValidationJob, WebhookEndpoint, WebhookDelivery, DeadLetter, WorkflowDefinition, WorkflowRun,
    SimulationJob, User,
)  # fmt: skip


def place(model: type[Model], page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


def queries_of(browser: Client, addresses: Iterable[str]) -> list[int]:
    counts = []
    for address in addresses:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            answer = browser.get(address)
        assert answer.status_code == 200, (address, answer.status_code)
        counts.append(len(captured))
    return counts


def test_every_model_that_the_admin_shows_is_tried_here() -> None:
    shown = {model for model in admin.site._registry if model._meta.app_label != "auth"}

    assert shown == {model for model in MODELS if model._meta.app_label != "auth"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_list_and_a_page_cost_the_same_for_more_rows(browser: Client, make: Make, model: type[Model]) -> None:
    def asked() -> list[int]:
        newest = model._default_manager.order_by("pk").last()
        assert newest is not None
        listed = place(model, "changelist")
        return queries_of(browser, [listed, f"{listed}?q=x%27%22", place(model, "change", newest.pk)])

    make(0)
    asked()  # what is remembered for the life of the process, such as content types
    few = asked()
    for number in range(1, 5):
        make(number)

    assert asked() == few


def test_dead_letters_are_requeued_and_purged_from_their_list(browser: Client, make: Make) -> None:
    for number in range(2):
        make(number)
    first, second = DeadLetter.objects.order_by("id")
    listed = place(DeadLetter, "changelist")

    requeued = browser.post(listed, {"action": "requeue", "_selected_action": [first.pk]}, follow=True)
    purged = browser.post(listed, {"action": "purge", "_selected_action": [first.pk, second.pk]}, follow=True)

    assert "dead letters requeued" in requeued.content.decode()
    assert "1 dead letters purged" in purged.content.decode()
    second.refresh_from_db()
    assert second.state == LetterState.PURGED


def test_who_may_only_look_decides_nothing(browser: Client, make: Make) -> None:
    make(0)
    looker = User.objects.create_user("looker", password="a-long-enough-password", is_staff=True)
    looker.user_permissions.add(*permissions("view_deadletter"))
    browser.logout()
    assert browser.login(username="looker", password="a-long-enough-password")
    listed = place(DeadLetter, "changelist")

    browser.post(listed, {"action": "purge", "_selected_action": [DeadLetter.objects.get().pk]})

    assert browser.get(listed).status_code == 200
    assert browser.get(place(ApiKey, "changelist")).status_code == 403
    assert DeadLetter.objects.get().state == LetterState.WAITING


def permissions(codename: str) -> Any:
    from django.contrib.auth.models import Permission

    return Permission.objects.filter(codename=codename)


@pytest.mark.parametrize("scopes", ["5", '"validations:read"', '["validations:everything"]', "[[]]"])
def test_a_key_has_scopes_that_exist(browser: Client, api_key: ApiKey, scopes: str) -> None:
    answer = browser.post(place(ApiKey, "change", api_key.pk), {"name": "n", "scopes": scopes})

    assert answer.status_code == 200
    assert "must be a list" in answer.content.decode()
    api_key.refresh_from_db()
    assert api_key.allows(Scope.READ)
