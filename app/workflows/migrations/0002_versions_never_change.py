"""The database itself refuses to change a version or its steps: runs refer to them for ever."""

from typing import ClassVar

from django.db import migrations

FORWARD = """
CREATE FUNCTION workflows_versions_never_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % never change: make a new version', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER version_never_changes BEFORE UPDATE ON workflows_workflowversion
    FOR EACH ROW EXECUTE FUNCTION workflows_versions_never_change();
CREATE TRIGGER step_never_changes BEFORE UPDATE ON workflows_workflowstepdefinition
    FOR EACH ROW EXECUTE FUNCTION workflows_versions_never_change();
"""
BACKWARD = """
DROP TRIGGER step_never_changes ON workflows_workflowstepdefinition;
DROP TRIGGER version_never_changes ON workflows_workflowversion;
DROP FUNCTION workflows_versions_never_change();
"""


class Migration(migrations.Migration):
    dependencies: ClassVar = [("workflows", "0001_initial")]
    operations: ClassVar = [migrations.RunSQL(FORWARD, BACKWARD)]
