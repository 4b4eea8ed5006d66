from typing import ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="CallbackReceipt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("nonce", models.CharField(max_length=200, unique=True)),
                ("kind", models.CharField(max_length=40)),
                ("target", models.UUIDField()),
                ("body_sha256", models.CharField(max_length=64)),
                ("signed_by", models.CharField(help_text="The key's id, or the service account.", max_length=200)),
                ("answer", models.JSONField()),
                ("received_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["kind", "target", "body_sha256"], name="callbackreceipt_same"),
                    models.Index(fields=["received_at"], name="callbackreceipt_received"),
                ],
            },
        ),
    ]
