"""Workflows in Postgres: what their authors wrote, and what became of it.

`WorkflowDefinition` is the name that stays, `WorkflowVersion` what was meant by it at one time. Versions and their
steps never change, which triggers in the database see to; a run belongs to one version for ever.

Locks are always taken in the order run, step run, simulation job.
"""

from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from django.db import models
from django.db.models import Q
from django.utils import timezone

from app.ids import time_ordered_id
from app.leases import Leased, LeasedQuerySet
from app.organizations.models import ApiKey, Organization
from app.workflows import engine
from app.workflows.definitions import AnyStep, Definition, RetryIn, StepType, step_adapter
from app.workflows.engine import FINAL_RUN_STATES, FINAL_STEP_STATES, RunState, RunWhen, StepState

_ENGINE_COLUMNS = ("key", "type", "depends_on", "run_when", "may_fail", "retry")


# Sorted: a set has no order, and a migration would seem to be missing every other time.
_FINAL_RUN = sorted(state.value for state in FINAL_RUN_STATES)
_FINAL_STEP = sorted(state.value for state in FINAL_STEP_STATES)


def _choices(values: Any) -> list[tuple[str, str]]:
    return [(value.value, value.value) for value in values]


class WorkflowDefinition(models.Model):
    """A workflow of an organisation, under a name that is unique in it."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="workflows")
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["organization", "name"], name="workflow_name_is_unique")
        ]
        indexes: ClassVar = [models.Index(fields=["organization", "-id"], name="workflow_of_organization")]

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(models.Model):
    """One version of a workflow, numbered from 1 without gaps. Immutable."""

    workflow = models.ForeignKey(WorkflowDefinition, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, null=True, related_name="+", db_constraint=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["workflow", "-number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["workflow", "number"], name="workflowversion_number_is_unique")
        ]

    def __str__(self) -> str:
        return f"{self.workflow_id} version {self.number}"


class WorkflowStepDefinition(models.Model):
    """A step of a version. Immutable. What the engine decides by has columns; `settings` is the rest, perhaps large."""

    version = models.ForeignKey(WorkflowVersion, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    key = models.CharField(max_length=63)
    type = models.CharField(max_length=10, choices=_choices(StepType))
    depends_on = models.JSONField(default=list)
    run_when = models.CharField(max_length=13, choices=_choices(RunWhen))
    may_fail = models.BooleanField()
    retry = models.JSONField()
    settings = models.JSONField()

    class Meta:
        ordering: ClassVar = ["version", "position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version", "key"], name="workflowstep_key_is_unique"),
            models.UniqueConstraint(fields=["version", "position"], name="workflowstep_position_is_unique"),
            models.CheckConstraint(
                condition=Q(type__in=[kind.value for kind in StepType]), name="workflowstep_type_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @classmethod
    def of(cls, version: WorkflowVersion, definition: Definition) -> list["WorkflowStepDefinition"]:
        return [
            cls(
                version=version,
                position=position,
                **{name: document.pop(name) for name in _ENGINE_COLUMNS},
                settings=document,
            )
            for position, document in enumerate(definition.canonical()["steps"])
        ]

    @property
    def document(self) -> dict[str, Any]:
        """As its author wrote it, with every default."""
        settings: dict[str, Any] = self.settings
        return {name: getattr(self, name) for name in _ENGINE_COLUMNS} | settings

    @property
    def masked_document(self) -> dict[str, Any]:
        """The document without what would let its reader act in the author's name."""
        document: dict[str, Any] = self.document
        if "webhook_url" in document["config"]:
            host = urlsplit(document["config"]["webhook_url"]).netloc
            document["config"] = document["config"] | {"webhook_url": f"https://{host}/…"}
        return document

    @property
    def definition(self) -> AnyStep:
        return step_adapter.validate_python(self.document)

    def as_step(self) -> engine.Step:
        return engine.Step(
            key=self.key,
            depends_on=tuple(self.depends_on),
            run_when=RunWhen(self.run_when),
            may_fail=self.may_fail,
            retry=RetryIn.model_validate(self.retry).policy(),
        )


class WorkflowRun(models.Model):
    """One run of one version. When it has ended it never changes: a replay is a run of its own."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="workflow_runs")
    version = models.ForeignKey(WorkflowVersion, on_delete=models.PROTECT, related_name="runs")
    api_key = models.ForeignKey(ApiKey, on_delete=models.SET_NULL, null=True, related_name="+")
    replay_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="replays")
    state = models.CharField(max_length=9, choices=_choices(RunState), default=RunState.PENDING)
    inputs = models.JSONField(default=dict)

    needs_advance_since = models.DateTimeField(
        null=True, editable=False, help_text="Something has changed that nobody has decided on yet."
    )

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["organization", "-id"], name="workflowrun_of_organization"),
            models.Index(
                fields=["needs_advance_since"],
                condition=Q(needs_advance_since__isnull=False),
                name="workflowrun_needs_advance",
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in RunState]), name="workflowrun_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(state__in=_FINAL_RUN, finished_at__isnull=False)
                | ~Q(state__in=_FINAL_RUN) & Q(finished_at__isnull=True),
                name="workflowrun_finished_iff_final",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.id}"

    @property
    def is_final(self) -> bool:
        return RunState(self.state).is_final


class StepRuns(LeasedQuerySet["WorkflowStepRun"]):
    def unfinished(self) -> Self:
        return self.filter(state__in=[StepState.PENDING.value, StepState.RUNNING.value], is_dispatched=True)


class WorkflowStepRun(Leased):
    """One step of one run. `attempt` counts from 1; a crash of a worker does not count as one, a failure does."""

    id = models.UUIDField(primary_key=True, default=time_ordered_id, editable=False)
    run = models.ForeignKey(WorkflowRun, on_delete=models.CASCADE, related_name="steps")
    step = models.ForeignKey(WorkflowStepDefinition, on_delete=models.PROTECT, related_name="+")
    copied_from = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+")
    state = models.CharField(max_length=9, choices=_choices(StepState), default=StepState.PENDING)
    attempt = models.PositiveSmallIntegerField(default=1)
    starts = models.PositiveSmallIntegerField(default=0, help_text="How often a worker began this attempt.")
    outputs = models.JSONField(null=True)
    problem = models.JSONField(null=True, help_text="Why the last attempt failed, or why the step was skipped.")

    is_dispatched = models.BooleanField(default=False)
    not_before = models.DateTimeField(null=True, help_text="A retry rests until then.")
    due_at = models.DateTimeField(null=True, help_text="When the sweep looks after this step.")
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[Any] = StepRuns.as_manager()

    class Meta:
        ordering: ClassVar = ["run", "step__position"]
        indexes: ClassVar = [
            models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="workflowsteprun_due"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run", "step"], name="workflowsteprun_is_unique"),
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in StepState]), name="workflowsteprun_state_is_known"
            ),
            models.CheckConstraint(
                condition=Q(state__in=_FINAL_STEP, finished_at__isnull=False)
                | ~Q(state__in=_FINAL_STEP) & Q(finished_at__isnull=True),
                name="workflowsteprun_finished_iff_final",
            ),
            # Nothing that has ended, or that nobody has asked for, is looked after; everything else is.
            models.CheckConstraint(
                condition=Q(due_at__isnull=True)
                & (Q(state__in=_FINAL_STEP) | Q(state=StepState.PENDING.value, is_dispatched=False))
                | Q(due_at__isnull=False)
                & (
                    Q(state__in=[StepState.RUNNING.value, StepState.WAITING.value])
                    | Q(state=StepState.PENDING.value, is_dispatched=True)
                ),
                name="workflowsteprun_due_iff_under_way",
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.id}"

    @property
    def is_final(self) -> bool:
        return StepState(self.state).is_final

    @property
    def is_finished(self) -> bool:
        """No worker has anything to do: a callback or nothing at all is what comes next."""
        return self.is_final or self.state == StepState.WAITING.value

    @property
    def problem_code(self) -> str:
        return str((self.problem or {}).get("code", ""))

    @property
    def progress(self) -> engine.Progress:
        return engine.Progress(state=StepState(self.state), is_dispatched=self.is_dispatched)


class CredentialKey(models.Model):
    """A public key that credentials were signed with. It stays when the private key is replaced: so do credentials."""

    key_id = models.CharField(max_length=64, unique=True, help_text="JWK thumbprint (RFC 7638).")
    jwk = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return self.key_id
