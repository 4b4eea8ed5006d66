"""Migrate the region's database and hand out row privileges. The migrate job runs this before a revision takes traffic.

It runs as the identity that owns the schema. The services' users may read and write rows, and nothing else: a service
that is taken over cannot drop a table.
"""

from typing import Any, Final

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from psycopg import sql

from app.settings import env

# Two executions may overlap when a rollout is retried. Any constant will do; this one spells "migr".
_LOCK: Final = 0x6D696772


class Command(BaseCommand):
    help = "Apply migrations, grant row privileges to VALIDIBOT_DATABASE_ROW_USERS, publish static files."

    def handle(self, *args: Any, **options: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10min'")
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            # A migration must not queue behind a long query and have every other query queue behind itself.
            cursor.execute("SET lock_timeout = '30s'")
        try:
            call_command("migrate", interactive=False, verbosity=1, stdout=self.stdout)
            for user in env.database_row_users:
                self._grant(user)
            with connection.cursor() as cursor:
                cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        finally:
            # Closing would return the session, and the lock with it, to the pool.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        if not env.database_row_users:
            self.stdout.write("row privileges: VALIDIBOT_DATABASE_ROW_USERS is empty, nothing granted")
        if env.static_bucket:
            call_command("publish_static", stdout=self.stdout)

    def _grant(self, user: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user])
            if cursor.fetchone() is None:
                raise CommandError(f"the database has no user {user!r}: create it before the migrate job runs")
            cursor.execute("SELECT current_user")
            if cursor.fetchone()[0] == user:
                raise CommandError(f"{user!r} owns the schema: a service needs a user of its own")
            role = sql.Identifier(user)
            for statement in (
                "GRANT USAGE ON SCHEMA public TO {}",
                "REVOKE CREATE ON SCHEMA public FROM {}",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
                "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO {}",
                # Which migrations ran is the migrate identity's to say.
                "REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {}",
            ):
                cursor.execute(sql.SQL(statement).format(role))
        self.stdout.write(f"row privileges: {user}")
