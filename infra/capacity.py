"""Database connections: what an instance allows, and what the services may open. Pure arithmetic."""

import re
from dataclasses import dataclass

# Cloud SQL's default for PostgreSQL by memory in GiB ("Configure database flags", max_connections, read 2026-11).
# The program sets the flag to the same number, so that the table is what is true and not only what was read.
CONNECTIONS_BY_MEMORY_GIB = (
    (0.5, 25),
    (1.5, 50),
    (3.5, 100),
    (6.0, 200),
    (7.5, 400),
    (15.0, 500),
    (30.0, 600),
    (60.0, 800),
    (120.0, 1000),
)

SHARED_CORE_MEMORY_MIB = {"db-f1-micro": 614, "db-g1-small": 1740}

# Three that PostgreSQL keeps for superusers, Cloud SQL's own agents, the migrate and maintenance jobs, one operator.
RESERVED_CONNECTIONS = 20

# While traffic moves, the old revision and the new one may each run at their maximum.
REVISIONS_DURING_A_ROLLOUT = 2


@dataclass(frozen=True, kw_only=True)
class Demand:
    """`max_instances` of a service, each with `connections` in its pools."""

    max_instances: int
    connections: int


def memory_mib(tier: str) -> int | None:
    """None for a tier that is not one of Cloud SQL's for PostgreSQL."""
    if tier in SHARED_CORE_MEMORY_MIB:
        return SHARED_CORE_MEMORY_MIB[tier]
    if match := re.fullmatch(r"db-custom-(\d+)-(\d+)", tier):
        cpus, memory = map(int, match.groups())
        fits = (cpus == 1 or cpus % 2 == 0) and 1 <= cpus <= 96
        # 0.9 to 6.5 GiB for each vCPU, in steps of 256 MiB, and never less than 3.75 GiB.
        fits = fits and memory % 256 == 0 and memory >= 3840 and 0.9 * 1024 <= memory / cpus <= 6.5 * 1024
        return memory if fits else None
    if match := re.fullmatch(r"db-perf-optimized-N-(2|4|8|16|32|48|64|80|96|128)", tier):
        return int(match[1]) * 8 * 1024
    return None


def max_connections(tier: str) -> int:
    """What an instance of `tier` allows.

    Raises:
        ValueError: there is no such tier.
    """
    memory = memory_mib(tier)
    if memory is None:
        raise ValueError(f"{tier} is no tier of Cloud SQL for PostgreSQL")
    allowed = [connections for gib, connections in CONNECTIONS_BY_MEMORY_GIB if memory >= gib * 1024]
    return allowed[-1]


def needed_connections(demands: tuple[Demand, ...]) -> int:
    at_rest = sum(demand.max_instances * demand.connections for demand in demands)
    return REVISIONS_DURING_A_ROLLOUT * at_rest + RESERVED_CONNECTIONS
