"""`python -m app dead-letters list|show|requeue|purge`: what ran out of attempts, and what becomes of it."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.forms.models import model_to_dict

from app.dead_letters import letters
from app.dead_letters.models import DeadLetter, State
from app.tasks import TASKS
from app.web.arguments import count


class Command(BaseCommand):
    help = "List, show, requeue and purge dead letters."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        listing = commands.add_parser("list", help="those that wait, or all; newest first")
        listing.add_argument("--queue")
        listing.add_argument("--all", action="store_true", help="also those that were requeued or purged")
        listing.add_argument("--limit", type=count, default=100, help="how many to list; default: 100")
        listing.add_argument("--json", action="store_true")
        for name, text in (
            ("show", "everything that is known of one"),
            ("requeue", "deliver again, from the first attempt"),
            ("purge", "decide that it is not to be done"),
        ):
            one = commands.add_parser(name, help=text)
            one.add_argument("ids", type=int, nargs="+" if name != "show" else 1, metavar="id")
        for name in ("requeue", "purge"):
            commands.choices[name].add_argument(
                "--continue", action="store_true", dest="go_on", help="go on with the others when one cannot be"
            )

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['command']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        found = DeadLetter.objects.all()
        if not options["all"]:
            found = found.filter(state=State.WAITING)
        if options["queue"]:
            found = found.filter(queue=options["queue"])
        rows = list(found.order_by("-id")[: options["limit"]])
        if options["json"]:
            self.stdout.write(json.dumps([_fields(row) for row in rows], indent=2))
            return
        for row in rows:
            moment = row.failed_at.isoformat(timespec="seconds")
            self.stdout.write(
                f"{row.pk}\t{row.state}\t{moment}\t{row.route}/{row.task_id}\t{row.attempts} attempts\t"
                f"{row.error_type}: {row.error[:100]}"
            )
        total = found.count()
        part = f"the newest {len(rows)} of " if len(rows) < total else ""
        self.stdout.write(f"{part}{total} dead letters")

    def _show(self, options: dict[str, Any]) -> None:
        row = DeadLetter.objects.filter(pk=options["ids"][0]).first()
        if row is None:
            raise CommandError(f"there is no dead letter {options['ids'][0]}")
        self.stdout.write(json.dumps(_fields(row), indent=2))

    def _requeue(self, options: dict[str, Any]) -> None:
        self._each(options, "requeued", lambda id_: letters.requeue(id_, TASKS))

    def _purge(self, options: dict[str, Any]) -> None:
        self._each(options, "purged", letters.purge)

    def _each(self, options: dict[str, Any], done: str, decide: Any) -> None:
        failed = 0
        for id_ in options["ids"]:
            try:
                row = decide(id_)
            except (letters.NotRequeued, DeadLetter.DoesNotExist) as error:
                message = f"dead letter {id_}: {error}"
                if not options["go_on"]:
                    raise CommandError(message) from None
                failed += 1
                self.stderr.write(message)
            else:
                self.stdout.write(f"{done} {id_}: {row.route}/{row.task_id}")
        if failed:
            raise CommandError(f"{failed} of {len(options['ids'])} were not {done}")


def _fields(row: DeadLetter) -> dict[str, Any]:
    fields = {"id": row.pk} | model_to_dict(row)
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in fields.items()}
