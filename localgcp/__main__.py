"""`python -m localgcp`, also with a Python that does not have what the region needs, if the checkout's `.venv` has."""

import os
import sys
from pathlib import Path

try:
    from localgcp.cli import app
except ModuleNotFoundError as missing:
    environment = Path(__file__).resolve().parents[1] / ".venv"
    python = environment / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != environment.resolve():
        os.execv(python, [str(python), "-m", "localgcp", *sys.argv[1:]])  # noqa: S606 (no shell is wanted)
    sys.exit(f"localgcp: this Python lacks the package {missing.name}: run scripts/bootstrap, then .venv/bin/python")

if __name__ == "__main__":
    app()
