"""A key that may do everything may still do everything: workflows are new to its list of scopes."""

from typing import ClassVar

from django.db import migrations

FORWARD = """
UPDATE organizations_apikey SET scopes = scopes || '["workflows:read", "workflows:write"]'
    WHERE scopes @> '["validations:read", "validations:write"]' AND NOT scopes @> '["workflows:read"]';
"""
BACKWARD = """
UPDATE organizations_apikey SET scopes = scopes - 'workflows:read' - 'workflows:write';
"""


class Migration(migrations.Migration):
    dependencies: ClassVar = [("organizations", "0002_data_region_never_changes")]
    operations: ClassVar = [migrations.RunSQL(FORWARD, BACKWARD)]
