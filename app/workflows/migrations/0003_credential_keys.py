from typing import ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [
        ("workflows", "0002_versions_never_change"),
    ]

    operations: ClassVar = [
        migrations.CreateModel(
            name="CredentialKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key_id", models.CharField(help_text="JWK thumbprint (RFC 7638).", max_length=64, unique=True)),
                ("jwk", models.JSONField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ["id"],
            },
        ),
    ]
