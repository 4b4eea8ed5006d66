"""Create an organisation and its API key. May be run again: what exists already stays."""

import argparse
import re
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from app.organizations.models import ApiKey, Organization
from app.regions import DataRegion
from app.settings import env
from app.web.arguments import count


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("must be the SHA-256 of the whole key, as 64 hexadecimal digits")
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]{8}", text):
        raise argparse.ArgumentTypeError("must be the 8 characters between the second and third underscore of the key")
    return text


class Command(BaseCommand):
    help = "Create an organisation, and give it the API key with this hash. The key itself never comes here."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--slug", required=True)
        parser.add_argument("--name", required=True)
        parser.add_argument("--data-region", required=True, choices=[region.value for region in DataRegion])
        parser.add_argument("--api-key-hash", type=_sha256, help="hex SHA-256 of the key text vb_<region>_<prefix>_…")
        parser.add_argument("--api-key-prefix", type=_prefix, help="shown to tell keys apart")
        parser.add_argument("--requests-per-hour", type=count, help="a limit of the key's own")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        region = DataRegion(options["data_region"])
        if region is not env.data_region:
            raise CommandError(
                f"this stack serves {env.data_region.value}: create an organisation of {region.value} in its own stack"
            )
        wanted = Organization(slug=options["slug"], name=options["name"], data_region=region.value)
        try:
            wanted.clean_fields()
        except ValidationError as error:
            lines = (f"--{field}: {' '.join(messages)}" for field, messages in error.message_dict.items())
            raise CommandError("; ".join(lines)) from None
        organization, created = Organization.objects.get_or_create(
            slug=wanted.slug, defaults={"name": wanted.name, "data_region": wanted.data_region}
        )
        if organization.region is not region:
            raise CommandError(f"{organization.slug} exists in {organization.data_region}, and a region never changes")
        self.stdout.write(f"organisation {organization.slug}: {'created' if created else 'exists'}")
        if not options["api_key_hash"]:
            return
        key, created = ApiKey.objects.select_for_update().get_or_create(
            sha256=options["api_key_hash"],
            defaults={
                "organization": organization,
                "prefix": options["api_key_prefix"] or "",
                "requests_per_hour": options["requests_per_hour"],
            },
        )
        if key.organization_id != organization.pk:
            raise CommandError("this API key belongs to another organisation")
        if key.revoked_at is not None:
            raise CommandError("this API key is revoked: generate another one")
        if options["requests_per_hour"] and key.requests_per_hour != options["requests_per_hour"]:
            key.requests_per_hour = options["requests_per_hour"]
            key.save(update_fields=["requests_per_hour"])
        self.stdout.write(f"API key {key.sha256[:8]}…: {'created' if created else 'exists'}")
