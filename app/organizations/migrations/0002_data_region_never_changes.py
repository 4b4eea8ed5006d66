"""The database itself refuses to move an organisation to another region: its data would not follow."""

from typing import ClassVar

from django.db import migrations

FORWARD = """
CREATE FUNCTION organizations_data_region_never_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the data region of organisation % is % and never changes', OLD.slug, OLD.data_region
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER data_region_never_changes
    BEFORE UPDATE OF data_region ON organizations_organization
    FOR EACH ROW WHEN (OLD.data_region IS DISTINCT FROM NEW.data_region)
    EXECUTE FUNCTION organizations_data_region_never_changes();
"""
BACKWARD = """
DROP TRIGGER data_region_never_changes ON organizations_organization;
DROP FUNCTION organizations_data_region_never_changes();
"""


class Migration(migrations.Migration):
    dependencies: ClassVar = [("organizations", "0001_initial")]
    operations: ClassVar = [migrations.RunSQL(FORWARD, BACKWARD)]
