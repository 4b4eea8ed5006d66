"""`python -m app <command>`: Django's management commands."""

import os
import sys

from app.environment import exit_on_unusable_environment


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
    exit_on_unusable_environment()

    from django.core.management import execute_from_command_line

    execute_from_command_line(["python -m app", *sys.argv[1:]])


if __name__ == "__main__":
    main()
