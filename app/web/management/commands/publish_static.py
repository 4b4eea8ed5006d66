"""Upload the static files of this release to the bucket behind the CDN."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management.base import BaseCommand, CommandError

from app.cloud import storage
from app.settings import env


class Command(BaseCommand):
    help = "Upload static files to VALIDIBOT_STATIC_BUCKET, under the path that the load balancer sends there."

    def handle(self, *args: Any, **options: Any) -> None:
        if not env.static_bucket:
            raise CommandError("VALIDIBOT_STATIC_BUCKET is not set: set it to the bucket behind /static/")
        prefix = settings.STATIC_URL.lstrip("/")
        files: dict[str, Path] = {}
        for finder in get_finders():
            for path, held_by in finder.list(["*.map"]):
                files.setdefault(prefix + path, Path(held_by.path(path)))
        try:
            storage.publish(env.static_bucket, env.google_cloud_project, files.items(), self.stdout.write)
        except storage.FAILURES as error:
            raise CommandError(f"static files could not be published to gs://{env.static_bucket}: {error}") from error
