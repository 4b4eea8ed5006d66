"""What the schedules do for simulations."""

from app.outbox import Deadline
from app.simulations import jobs


def reap(deadline: Deadline) -> dict[str, int]:
    return {"simulations reaped": jobs.reap(until=deadline)}
