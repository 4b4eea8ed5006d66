"""kill -9: an acknowledged task is delivered, and one that is done comes again only if its end was not seen."""

import random
import threading
import time
from collections import Counter

import httpx

from tests.localgcp.killable import killable
from tests.localgcp.targets import serving

LOCATION = "projects/demo-project/locations/australia-southeast1"
QUEUE = f"{LOCATION}/queues/jobs"
CONCURRENT = 5
KILLS = 4


def test_no_acknowledged_task_is_lost_and_none_that_is_done_comes_again() -> None:
    chance = random.Random(20261123)
    acknowledged: list[str] = []

    def create(round_: int) -> None:
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=30) as http:
            for number in range(1000):
                name = f"{QUEUE}/tasks/{round_}-{number}"
                task = {"name": name, "httpRequest": {"url": target.url}}
                try:
                    answer = http.post(f"/cloudtasks/v2/{QUEUE}/tasks", json={"task": task})
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged.append(name)

    with killable() as server, serving() as target:
        limits = {"maxConcurrentDispatches": CONCURRENT, "maxDispatchesPerSecond": 200}
        queue = {"name": QUEUE, "rateLimits": limits, "retryConfig": {"minBackoff": "0.1s"}}
        server.http.post(f"/cloudtasks/v2/{LOCATION}/queues", json=queue).raise_for_status()
        for round_ in range(KILLS):
            creating = threading.Thread(target=create, args=(round_,))
            before = len(acknowledged)
            creating.start()
            wanted = before + chance.randrange(10, 60)
            while len(acknowledged) < wanted and creating.is_alive():
                creating.join(0.001)
            server.kill()
            creating.join(30)
            server.start()
        deadline = time.monotonic() + 30
        while server.http.get(f"/cloudtasks/v2/{QUEUE}/tasks").json():
            assert time.monotonic() < deadline

        delivered = Counter(delivery.headers["X-CloudTasks-TaskName"] for delivery in target.deliveries)
        first = {"name": acknowledged[0], "httpRequest": {"url": target.url}}
        again = server.http.post(f"/cloudtasks/v2/{QUEUE}/tasks", json={"task": first})

    assert {name.rpartition("/")[2] for name in acknowledged} <= delivered.keys()
    assert sum(count - 1 for count in delivered.values()) <= KILLS * CONCURRENT
    assert again.status_code == 409
