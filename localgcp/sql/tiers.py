"""Machine types of Cloud SQL for PostgreSQL, and what follows from their memory."""

import re
from dataclasses import dataclass

from localgcp.errors import InvalidArgument

GIB = 1024
SHARED_CORE_MIB = {"db-f1-micro": 614, "db-g1-small": 1740}
CUSTOM = re.compile(r"db-custom-(\d+)-(\d+)")
PERFORMANCE = re.compile(r"db-(?:perf-optimized-N-(\d+)|c4a-highmem-(\d+))")
#: Machine series of Enterprise Plus have 8 GiB for each CPU.
PERFORMANCE_CPUS = (1, 2, 4, 8, 16, 32, 48, 64, 72, 80, 96, 128)

#: Default of max_connections by memory, at least so many MiB ("Configure database flags", max_connections).
MAX_CONNECTIONS = (
    (120 * GIB, 1000),
    (60 * GIB, 800),
    (30 * GIB, 600),
    (15 * GIB, 500),
    (7.5 * GIB, 400),
    (6 * GIB, 200),
    (3.75 * GIB, 100),
    (1.7 * 1000, 50),
    (0, 25),
)


@dataclass(frozen=True, kw_only=True)
class Tier:
    name: str
    memory_mib: int

    @property
    def max_connections(self) -> int:
        return next(connections for least, connections in MAX_CONNECTIONS if self.memory_mib >= least)


def tier_of(name: str, edition: str) -> Tier:
    """Raises InvalidArgument for a machine type that Cloud SQL does not offer in that edition."""
    if edition == "ENTERPRISE_PLUS":
        found = PERFORMANCE.fullmatch(name)
        cpus = int(found[1] or found[2]) if found else 0
        if cpus not in PERFORMANCE_CPUS:
            raise InvalidArgument(
                f"Invalid Tier ({name}) for (ENTERPRISE_PLUS) Edition. "
                "Use a predefined Tier like db-perf-optimized-N-* instead.",
                reason="invalid",
            )
        return Tier(name=name, memory_mib=cpus * 8 * GIB)
    if name in SHARED_CORE_MIB:
        return Tier(name=name, memory_mib=SHARED_CORE_MIB[name])
    custom = CUSTOM.fullmatch(name)
    if custom is None:
        raise InvalidArgument(
            f"Invalid Tier ({name}) for (ENTERPRISE) Edition. Use db-f1-micro, db-g1-small or "
            "db-custom-<CPUs>-<memory in MB> instead.",
            reason="invalid",
        )
    cpus, memory = int(custom[1]), int(custom[2])
    problem = ""
    if not (cpus == 1 or (cpus % 2 == 0 and 2 <= cpus <= 96)):
        problem = f"{cpus} CPUs: choose 1, or an even number up to 96"
    elif memory % 256 or memory < 3840:
        problem = f"{memory} MB of memory: choose a multiple of 256, at least 3840"
    elif not 0.9 * GIB <= memory / cpus <= 6.5 * GIB:
        problem = f"{memory} MB of memory for {cpus} CPUs: choose 0.9 to 6.5 GB for each"
    if problem:
        raise InvalidArgument(f"Invalid request: Invalid tier ({name}): {problem}.", reason="invalid")
    return Tier(name=name, memory_mib=memory)


def named_tiers() -> list[Tier]:
    shared = [Tier(name=name, memory_mib=memory) for name, memory in SHARED_CORE_MIB.items()]
    names = [f"db-perf-optimized-N-{cpus}" for cpus in PERFORMANCE_CPUS if cpus > 1]
    return shared + [tier_of(name, "ENTERPRISE_PLUS") for name in names]
