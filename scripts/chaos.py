"""`make chaos`: work in a region of its own while everything around the work fails, and the count of what became of it.

Exit codes: 0 everything held, 1 something was lost, doubled or delayed, 2 the chaos could not be carried out,
3 something could not be verified.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.up import UpFailed  # noqa: E402
from tests.chaos.region import struck_region  # noqa: E402
from tests.chaos.run import Chaos, run  # noqa: E402
from tests.chaos.strikes import Script  # noqa: E402
from tests.chaos.work import KEY_SECONDS, Refused  # noqa: E402

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    console.print("[bold]chaos:[/bold]", Text(text))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validations", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=200, help="of a workflow of ten steps")
    parser.add_argument("--duration", type=float, default=300, metavar="SECONDS", help="how long faults strike")
    parser.add_argument("--worker-kills", type=int, default=20)
    parser.add_argument("--database-restarts", type=int, default=4)
    parser.add_argument("--region-kills", type=int, default=4)
    parser.add_argument("--settle", type=float, default=900, metavar="SECONDS", help="for the last end, without faults")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the strikes")
    parser.add_argument(
        "--key-patience",
        type=float,
        default=KEY_SECONDS,
        metavar="SECONDS",
        help="how long a customer keeps an idempotency key that a request which died may hold",
    )
    parser.add_argument("--hurry", action="store_true", help="run sweep and reaper while waiting, off schedule")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--data-dir", type=Path, help="keep the region there, instead of one that is thrown away")
    wanted = parser.parse_args()
    chaos = Chaos(
        validations=wanted.validations,
        runs=wanted.runs,
        script=Script(
            worker_kills=wanted.worker_kills,
            database_restarts=wanted.database_restarts,
            region_kills=wanted.region_kills,
            duration_seconds=wanted.duration,
            seed=wanted.seed,
        ),
        settle_seconds=wanted.settle,
        hurry=wanted.hurry,
        key_seconds=wanted.key_patience,
    )
    try:
        with struck_region(wanted.data_dir) as region:
            report = run(region, chaos, say)
    except (UpFailed, Refused, TimeoutError, RuntimeError, httpx.HTTPError, subprocess.CalledProcessError) as error:
        console.print("[bold red]chaos:[/bold red] could not be carried out:", Text(str(error)))
        return 2
    except Exception:
        # Python's own exit code for it would say that something was lost.
        console.print_exception()
        return 2
    if wanted.json:
        wanted.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    out = Console(highlight=False)
    report.show(out if out.is_terminal else Console(highlight=False, width=120))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
