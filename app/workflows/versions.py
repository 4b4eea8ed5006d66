"""Storing definitions: a workflow under its name, and a new version when what it does has changed."""

from django.db import IntegrityError, transaction

from app.organizations.models import ApiKey
from app.workflows.definitions import Definition
from app.workflows.models import WorkflowDefinition, WorkflowStepDefinition, WorkflowVersion


class NameTaken(Exception):
    """The organisation has a workflow of this name."""


def create(api_key: ApiKey, name: str, definition: Definition) -> WorkflowVersion:
    """A workflow with its first version. Raises: NameTaken."""
    with transaction.atomic():
        try:
            with transaction.atomic():
                workflow = WorkflowDefinition.objects.create(organization_id=api_key.organization_id, name=name)
        except IntegrityError:
            raise NameTaken(name) from None
        return _add(workflow, 1, api_key, definition)


def add(workflow: WorkflowDefinition, api_key: ApiKey, definition: Definition) -> tuple[WorkflowVersion, bool]:
    """The newest version, and whether it is new: a definition equal to the newest one adds none."""
    with transaction.atomic():
        # Numbers have no gaps, so two authors at once take turns.
        WorkflowDefinition.objects.select_for_update().get(id=workflow.id)
        newest = workflow.versions.order_by("-number").first()
        if newest is not None and newest.sha256 == definition.sha256:
            return newest, False
        return _add(workflow, newest.number + 1 if newest else 1, api_key, definition), True


def _add(workflow: WorkflowDefinition, number: int, api_key: ApiKey, definition: Definition) -> WorkflowVersion:
    version = WorkflowVersion.objects.create(
        workflow=workflow, number=number, sha256=definition.sha256, created_by=api_key
    )
    WorkflowStepDefinition.objects.bulk_create(WorkflowStepDefinition.of(version, definition))
    return version
