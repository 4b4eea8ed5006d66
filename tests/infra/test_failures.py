"""What the user of a dynamic resource reads when it fails."""

import sys
import traceback

import pytest

from infra.failures import Failure, told_plainly


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)


def shown(error: Exception) -> str:
    """What Pulumi's host for dynamic resources makes of an exception."""
    try:
        with told_plainly():
            raise error
    except Exception:
        return traceback.format_exc()


def test_a_failure_is_its_message_alone() -> None:
    assert shown(Failure("execution x failed\nno such column")) == (
        "infra.failures.Failure: execution x failed\nno such column\n"
    )


def test_a_mistake_of_ours_keeps_its_stack() -> None:
    assert "Traceback" in shown(KeyError("template"))
