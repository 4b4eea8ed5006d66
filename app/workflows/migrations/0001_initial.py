from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import app.ids


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar = [
        ("organizations", "0002_data_region_never_changes"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="WorkflowStepDefinition",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveSmallIntegerField()),
                ("key", models.CharField(max_length=63)),
                (
                    "type",
                    models.CharField(
                        choices=[("VALIDATOR", "VALIDATOR"), ("ACTION", "ACTION"), ("SIMULATION", "SIMULATION")],
                        max_length=10,
                    ),
                ),
                ("depends_on", models.JSONField(default=list)),
                (
                    "run_when",
                    models.CharField(
                        choices=[
                            ("ALL_SUCCEEDED", "ALL_SUCCEEDED"),
                            ("NONE_FAILED", "NONE_FAILED"),
                            ("ALL_FINISHED", "ALL_FINISHED"),
                        ],
                        max_length=13,
                    ),
                ),
                ("may_fail", models.BooleanField()),
                ("retry", models.JSONField()),
                ("settings", models.JSONField()),
            ],
            options={
                "ordering": ["version", "position"],
            },
        ),
        migrations.CreateModel(
            name="WorkflowDefinition",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=app.ids.time_ordered_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="workflows",
                        to="organizations.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="WorkflowRun",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=app.ids.time_ordered_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("PENDING", "PENDING"),
                            ("RUNNING", "RUNNING"),
                            ("SUCCESS", "SUCCESS"),
                            ("FAILED", "FAILED"),
                            ("CANCELLED", "CANCELLED"),
                        ],
                        default="PENDING",
                        max_length=9,
                    ),
                ),
                ("inputs", models.JSONField(default=dict)),
                (
                    "needs_advance_since",
                    models.DateTimeField(
                        editable=False, help_text="Something has changed that nobody has decided on yet.", null=True
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("started_at", models.DateTimeField(editable=False, null=True)),
                ("finished_at", models.DateTimeField(editable=False, null=True)),
                (
                    "api_key",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="organizations.apikey",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="workflow_runs",
                        to="organizations.organization",
                    ),
                ),
                (
                    "replay_of",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="replays",
                        to="workflows.workflowrun",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="WorkflowStepRun",
            fields=[
                ("lease_token", models.UUIDField(editable=False, null=True)),
                ("lease_expires_at", models.DateTimeField(editable=False, null=True)),
                (
                    "id",
                    models.UUIDField(
                        default=app.ids.time_ordered_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("PENDING", "PENDING"),
                            ("RUNNING", "RUNNING"),
                            ("WAITING", "WAITING"),
                            ("SUCCESS", "SUCCESS"),
                            ("FAILED", "FAILED"),
                            ("SKIPPED", "SKIPPED"),
                            ("CANCELLED", "CANCELLED"),
                        ],
                        default="PENDING",
                        max_length=9,
                    ),
                ),
                ("attempt", models.PositiveSmallIntegerField(default=1)),
                (
                    "starts",
                    models.PositiveSmallIntegerField(default=0, help_text="How often a worker began this attempt."),
                ),
                ("outputs", models.JSONField(null=True)),
                (
                    "problem",
                    models.JSONField(help_text="Why the last attempt failed, or why the step was skipped.", null=True),
                ),
                ("is_dispatched", models.BooleanField(default=False)),
                ("not_before", models.DateTimeField(help_text="A retry rests until then.", null=True)),
                ("due_at", models.DateTimeField(help_text="When the sweep looks after this step.", null=True)),
                ("started_at", models.DateTimeField(editable=False, null=True)),
                ("finished_at", models.DateTimeField(editable=False, null=True)),
                (
                    "copied_from",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="workflows.workflowsteprun",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="steps", to="workflows.workflowrun"
                    ),
                ),
                (
                    "step",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workflows.workflowstepdefinition",
                    ),
                ),
            ],
            options={
                "ordering": ["run", "step__position"],
            },
        ),
        migrations.CreateModel(
            name="WorkflowVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField()),
                ("sha256", models.CharField(max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "created_by",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="organizations.apikey",
                    ),
                ),
                (
                    "workflow",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="versions",
                        to="workflows.workflowdefinition",
                    ),
                ),
            ],
            options={
                "ordering": ["workflow", "-number"],
            },
        ),
        migrations.AddField(
            model_name="workflowstepdefinition",
            name="version",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="steps", to="workflows.workflowversion"
            ),
        ),
        migrations.AddField(
            model_name="workflowrun",
            name="version",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="runs", to="workflows.workflowversion"
            ),
        ),
        migrations.AddIndex(
            model_name="workflowdefinition",
            index=models.Index(fields=["organization", "-id"], name="workflow_of_organization"),
        ),
        migrations.AddConstraint(
            model_name="workflowdefinition",
            constraint=models.UniqueConstraint(fields=("organization", "name"), name="workflow_name_is_unique"),
        ),
        migrations.AddIndex(
            model_name="workflowsteprun",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False)), fields=["due_at"], name="workflowsteprun_due"
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowsteprun",
            constraint=models.UniqueConstraint(fields=("run", "step"), name="workflowsteprun_is_unique"),
        ),
        migrations.AddConstraint(
            model_name="workflowsteprun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("state__in", ["PENDING", "RUNNING", "WAITING", "SUCCESS", "FAILED", "SKIPPED", "CANCELLED"])
                ),
                name="workflowsteprun_state_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowsteprun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("finished_at__isnull", False), ("state__in", ["CANCELLED", "FAILED", "SKIPPED", "SUCCESS"])
                    ),
                    models.Q(
                        models.Q(("state__in", ["CANCELLED", "FAILED", "SKIPPED", "SUCCESS"]), _negated=True),
                        ("finished_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="workflowsteprun_finished_iff_final",
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowsteprun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("due_at__isnull", True),
                        models.Q(
                            ("state__in", ["CANCELLED", "FAILED", "SKIPPED", "SUCCESS"]),
                            models.Q(("is_dispatched", False), ("state", "PENDING")),
                            _connector="OR",
                        ),
                    ),
                    models.Q(
                        ("due_at__isnull", False),
                        models.Q(
                            ("state__in", ["RUNNING", "WAITING"]),
                            models.Q(("is_dispatched", True), ("state", "PENDING")),
                            _connector="OR",
                        ),
                    ),
                    _connector="OR",
                ),
                name="workflowsteprun_due_iff_under_way",
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowversion",
            constraint=models.UniqueConstraint(fields=("workflow", "number"), name="workflowversion_number_is_unique"),
        ),
        migrations.AddConstraint(
            model_name="workflowstepdefinition",
            constraint=models.UniqueConstraint(fields=("version", "key"), name="workflowstep_key_is_unique"),
        ),
        migrations.AddConstraint(
            model_name="workflowstepdefinition",
            constraint=models.UniqueConstraint(fields=("version", "position"), name="workflowstep_position_is_unique"),
        ),
        migrations.AddConstraint(
            model_name="workflowstepdefinition",
            constraint=models.CheckConstraint(
                condition=models.Q(("type__in", ["VALIDATOR", "ACTION", "SIMULATION"])),
                name="workflowstep_type_is_known",
            ),
        ),
        migrations.AddIndex(
            model_name="workflowrun",
            index=models.Index(fields=["organization", "-id"], name="workflowrun_of_organization"),
        ),
        migrations.AddIndex(
            model_name="workflowrun",
            index=models.Index(
                condition=models.Q(("needs_advance_since__isnull", False)),
                fields=["needs_advance_since"],
                name="workflowrun_needs_advance",
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowrun",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["PENDING", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"])),
                name="workflowrun_state_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowrun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at__isnull", False), ("state__in", ["CANCELLED", "FAILED", "SUCCESS"])),
                    models.Q(
                        models.Q(("state__in", ["CANCELLED", "FAILED", "SUCCESS"]), _negated=True),
                        ("finished_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="workflowrun_finished_iff_final",
            ),
        ),
    ]
