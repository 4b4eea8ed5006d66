"""`python -m app <command>`: Django's management commands."""

import os
import re
import sys

from app.environment import exit_on_unusable_environment


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
    exit_on_unusable_environment()

    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    # A command is a module, whose name has no hyphens; `dead-letters` is how people write it.
    command, arguments = sys.argv[1:2], sys.argv[2:]
    try:
        execute_from_command_line(["python -m app", *(re.sub(r"(?<=\w)-", "_", word) for word in command), *arguments])
    except OperationalError as error:
        # Whoever types a command cannot mend the code that it went through. The pool has logged what Postgres said.
        if "--traceback" in arguments:
            raise
        sys.exit(f"validibot: the database failed: {str(error).strip()}")


if __name__ == "__main__":
    main()
