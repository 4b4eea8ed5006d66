"""The store: durable, atomic, and safe to ask twice."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localgcp.errors import AlreadyExists, NotFound
from localgcp.store import Store, creating_request_id

NETWORK = "compute/projects/p/global/networks/n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "region.sqlite3")


def test_a_created_resource_is_read_back_and_listed_in_order(store: Store) -> None:
    for name in ("b", "a", "c"):
        store.create(f"api/projects/p/things/{name}", {"name": name})

    assert [thing["name"] for thing in store.list("api/projects/p", "things")] == ["b", "a", "c"]
    assert store.get("api/projects/p/things/a") == {"name": "a"}


def test_creating_twice_is_refused(store: Store) -> None:
    store.create(NETWORK, {})

    with pytest.raises(AlreadyExists):
        store.create(NETWORK, {})


def test_deleting_takes_what_is_below_and_its_policies_and_leaves_the_neighbours(store: Store) -> None:
    for key in ("api/secrets/s", "api/secrets/s/versions/1", "api/secrets/s2", "api/secrets/s2/versions/1"):
        store.create(key, {})
        store.set_policy(key, {"bindings": []})
    store.increment("api/secrets/s", "versions")

    store.delete("api/secrets/s")

    assert [resource.key for resource in store.scan("api/")] == ["api/secrets/s2", "api/secrets/s2/versions/1"]
    assert store.policy("api/secrets/s") == {}
    assert store.increment("api/secrets/s", "versions") == 1
    with pytest.raises(NotFound):
        store.delete("api/secrets/s")


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def fail_half_way() -> None:
        with store.transaction():
            store.create(NETWORK, {})
            with store.transaction():
                store.set_policy(NETWORK, {"bindings": []})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert not store.exists(NETWORK)
    assert store.policy(NETWORK) == {}


def test_a_counter_gives_no_number_twice_to_concurrent_callers(store: Store) -> None:
    numbers: list[int] = []

    def take() -> None:
        numbers.extend(store.increment("api/secrets/s", "versions") for _ in range(25))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(numbers) == list(range(1, 101))


def test_what_a_request_created_is_found_by_the_requests_id(store: Store) -> None:
    token = creating_request_id.set("request-1")
    try:
        store.create(NETWORK, {"name": "n"})
        store.create(f"{NETWORK}/peerings/x", {})
    finally:
        creating_request_id.reset(token)

    found = store.created_by_request("request-1")
    assert found is not None
    assert found.key == NETWORK
    assert store.created_by_request("request-2") is None


def test_a_committed_write_survives_the_kill_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "region.sqlite3"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from localgcp.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "store.create('api/a', {'n': 1})\n"
        "with store.transaction():\n"
        "    store.create('api/b', {'n': 2})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)

    assert ended.returncode == -9
    assert [resource.key for resource in Store(path).scan("api/")] == ["api/a"]
