"""`python -m bench <name>`: one measurement. It takes minutes, and the machine for itself."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    for name, text, rounds in (
        ("pulumi-up", "pulumi up of the AU stack, against providers that do nothing", 3),
        ("objects", "objects through Cloud Storage's API, against copies of files", 7),
        ("front-door", "validations per second through the front door, against gunicorn alone", 7),
        ("cold-start", "from zero instances to the first answer, against gunicorn started by hand", 7),
        ("queueing", "asynchronous validations, against Celery with Redis", 3),
    ):
        one = names.add_parser(name, help=text, description=text)
        one.add_argument("--rounds", type=int, default=rounds)
        one.add_argument("--data-dir", type=Path, help="a region that stays, instead of one that is thrown away")
        if name == "queueing":
            one.add_argument(
                "--celery", type=Path, required=True, help="site-packages of a virtual environment with celery[redis]"
            )
    one = names.add_parser("sweep", help="the outbox's statements as waiting rows grow to a million")
    one.add_argument("--rounds", type=int, default=21)
    names.add_parser("task-timing", help="the rate and the backoff of Cloud Tasks, against what a queue says")
    wanted = parser.parse_args()
    match wanted.name:
        case "pulumi-up":
            from bench import pulumi_up

            pulumi_up.run(wanted.rounds, 2 * wanted.rounds + 1)
        case "objects":
            from bench import objects

            objects.run(wanted.rounds, wanted.data_dir)
        case "front-door":
            from bench import front_door

            front_door.run(wanted.rounds, wanted.data_dir)
        case "cold-start":
            from bench import cold_start

            cold_start.run(wanted.rounds, wanted.data_dir)
        case "task-timing":
            from bench import task_timing

            task_timing.run()
        case "sweep":
            from bench import sweep

            sweep.run(wanted.rounds)
        case "queueing":
            from bench import queueing

            queueing.run(wanted.rounds, wanted.data_dir, wanted.celery)


if __name__ == "__main__":
    main()
