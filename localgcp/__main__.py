"""`python -m localgcp`."""

from localgcp.cli import app

if __name__ == "__main__":
    app()
