from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import app.ids


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar = [
        ("organizations", "0002_data_region_never_changes"),
        ("workflows", "0001_initial"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="SimulationJob",
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
                ("attempt", models.PositiveSmallIntegerField(default=1)),
                ("kind", models.CharField(choices=[("ENERGYPLUS", "Energyplus"), ("FMI", "Fmi")], max_length=10)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("PENDING", "Pending"),
                            ("RUNNING", "Running"),
                            ("SUCCESS", "Success"),
                            ("FAILED", "Failed"),
                            ("CANCELLED", "Cancelled"),
                        ],
                        default="PENDING",
                        max_length=9,
                    ),
                ),
                (
                    "backend",
                    models.CharField(
                        blank=True, choices=[("CLOUD_RUN", "Cloud Run"), ("MODAL", "Modal")], default="", max_length=9
                    ),
                ),
                (
                    "execution",
                    models.CharField(blank=True, default="", help_text="The backend's name for it.", max_length=500),
                ),
                (
                    "input_envelope",
                    models.CharField(blank=True, default="", help_text="Name of the object.", max_length=500),
                ),
                ("input_sha256", models.CharField(blank=True, default="", max_length=64)),
                (
                    "output_envelope",
                    models.CharField(blank=True, default="", help_text="Name of the object.", max_length=500),
                ),
                ("output_sha256", models.CharField(blank=True, default="", max_length=64)),
                ("problem", models.JSONField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("submitted_at", models.DateTimeField(editable=False, null=True)),
                ("deadline_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(editable=False, null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="simulation_jobs",
                        to="organizations.organization",
                    ),
                ),
                (
                    "step_run",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="simulation_jobs",
                        to="workflows.workflowsteprun",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ["PENDING", "RUNNING"])),
                        fields=["deadline_at"],
                        name="simulationjob_overdue",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("step_run", "attempt"), name="simulationjob_of_attempt"),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["PENDING", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"])),
                        name="simulationjob_state_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("finished_at__isnull", False), ("state__in", ("SUCCESS", "FAILED", "CANCELLED"))),
                            models.Q(("finished_at__isnull", True), ("state__in", ("PENDING", "RUNNING"))),
                            _connector="OR",
                        ),
                        name="simulationjob_finished_iff_final",
                    ),
                ],
            },
        ),
    ]
