"""Create a webhook endpoint for an organisation. May be run again: what exists already stays."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from app.organizations.models import Organization
from app.webhooks import sending
from app.webhooks.models import WebhookEndpoint


class Command(BaseCommand):
    help = "Create a webhook endpoint. Its secret is not printed; rotate it through the API to learn one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, help="its slug")
        parser.add_argument("--url", required=True)
        parser.add_argument(
            "--internal", action="store_true", help="the address may be private, and be called without TLS"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            sending.checked(options["url"], is_internal=options["internal"])
        except sending.NotAllowed as error:
            raise CommandError(str(error)) from None
        organization = Organization.objects.filter(slug=options["organization"]).first()
        if organization is None:
            raise CommandError(f"there is no organisation {options['organization']}")
        endpoint, is_new = WebhookEndpoint.objects.get_or_create(
            organization=organization, url=options["url"], defaults={"is_internal": options["internal"]}
        )
        self.stdout.write(f"webhook endpoint {endpoint.id}: {'created' if is_new else 'exists'}")
