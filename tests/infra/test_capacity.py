import pytest

from infra.capacity import Demand, max_connections, memory_mib, needed_connections


@pytest.mark.parametrize(
    ("tier", "allowed"),
    [
        ("db-f1-micro", 25),
        ("db-g1-small", 50),
        ("db-custom-1-3840", 100),
        ("db-custom-2-8192", 400),
        ("db-custom-4-15360", 500),
        ("db-perf-optimized-N-8", 800),
    ],
)
def test_a_tier_allows_the_connections_of_its_memory(tier: str, allowed: int) -> None:
    assert max_connections(tier) == allowed


@pytest.mark.parametrize(
    "tier", ["db-custom-3-8192", "db-custom-2-8193", "db-custom-1-3584", "db-custom-8-3840", "db-n1-standard-1", ""]
)
def test_what_google_does_not_sell_is_no_tier(tier: str) -> None:
    assert memory_mib(tier) is None


def test_a_rollout_doubles_what_the_services_need_and_a_reserve_comes_on_top() -> None:
    demands = (Demand(max_instances=4, connections=16), Demand(max_instances=2, connections=8))

    assert needed_connections(demands) == 2 * (64 + 16) + 20
