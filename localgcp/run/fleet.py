"""The instances of one revision: from zero to the maximum as requests ask for them, and back when they are idle."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from localgcp.build.images import ImageStore
from localgcp.run.instance import Instance
from localgcp.run.program import StartFailed, Workload

if TYPE_CHECKING:
    from localgcp.region import Region

#: Cloud Run keeps idle instances up to 15 minutes ("About instance autoscaling").
IDLE_AFTER = timedelta(minutes=15)
#: How long a request waits for a place when every instance is busy and no more may start.
QUEUE_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 60.0

log = logging.getLogger(__name__)


class NoInstance(Exception):
    """All instances are busy and no more may start. Cloud Run answers 429."""


class Fleet:
    def __init__(
        self,
        region: "Region",
        images: ImageStore,
        *,
        name: str,
        workload: Workload,
        concurrency: int,
        maximum: int,
        write: Callable[[Instance, str, Mapping[str, Any]], None],
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.maximum = maximum
        self.minimum = 0
        self.instances: list[Instance] = []
        self._region = region
        self._images = images
        self._workload = workload
        self._write = write
        self._starting: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._failures = 0
        self._is_retired = False

    @property
    def ready(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.ready]

    async def acquire(self) -> Instance:
        """An instance with a place for one more request. Raises NoInstance, StartFailed."""
        instance = self._free()
        if instance is not None:
            instance.take()
            return instance
        waiter: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            self._grow()
            # While something starts, the wait lasts as long as the start or the request does.
            while not waiter.done():
                await asyncio.wait({waiter}, timeout=QUEUE_SECONDS)
                if not waiter.done() and not self._starting:
                    raise NoInstance("The request was aborted because there was no available instance.")
            return waiter.result()
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            raise
        finally:
            waiter.cancel()
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)

    def release(self, instance: Instance) -> None:
        instance.last_used = self._region.clock.now()
        instance.give_back()
        self._serve_waiting()

    async def start_one(self) -> Instance:
        """Start an instance and wait for it. Raises StartFailed."""
        instance = Instance(
            self._region,
            self._images,
            self._workload,
            write=lambda log_name, entry: self._write(instance, log_name, entry),
            on_exit=self._exited,
        )
        self.instances.append(instance)
        try:
            await instance.start()
        except BaseException:
            self.instances.remove(instance)
            raise
        self._failures = 0
        if self._is_retired:
            self.instances.remove(instance)
            await instance.stop()
            raise StartFailed("The revision was deleted while an instance started.")
        instance.last_used = self._region.clock.now()
        self._serve_waiting()
        return instance

    def tend(self) -> None:
        """Called every second: keep the minimum, end what has been idle for long."""
        if self._is_retired:
            return
        idle_since = self._region.clock.now() - IDLE_AFTER
        ready = self.ready
        for instance in ready[self.minimum :]:
            if instance.in_flight == 0 and instance.last_used <= idle_since:
                self._end(instance)
        for _ in range(self.minimum - len(self.ready) - len(self._starting)):
            self._begin(after_seconds=self._backoff())

    async def retire(self) -> None:
        """Drain and end every instance; nothing starts any more."""
        self._is_retired = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(StartFailed("The revision was deleted."))
        for task in list(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(instance.stop() for instance in self.instances), return_exceptions=True)
        self.instances.clear()

    async def abandon(self) -> None:
        """End every instance without waiting for requests: localgcp itself is going."""
        self._is_retired = True
        for task in list(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(instance.stop(drain=False) for instance in self.instances), return_exceptions=True)
        self.instances.clear()

    def _free(self) -> Instance | None:
        best: Instance | None = None
        for instance in self.instances:
            if (
                instance.ready
                and instance.in_flight < self.concurrency
                and (best is None or instance.in_flight < best.in_flight)
            ):
                best = instance
        return best

    def _serve_waiting(self) -> None:
        while self._waiting:
            instance = self._free()
            if instance is None:
                return
            waiter = self._waiting.popleft()
            if not waiter.done():
                instance.take()
                waiter.set_result(instance)

    def _grow(self) -> None:
        wanted = -(-len(self._waiting) // self.concurrency)
        room = self.maximum - len(self.ready) - len(self._starting)
        for _ in range(min(wanted - len(self._starting), room)):
            self._begin()

    def _begin(self, after_seconds: float = 0.0) -> None:
        task = asyncio.get_running_loop().create_task(self._start_in_background(after_seconds))
        self._starting.add(task)

    async def _start_in_background(self, after_seconds: float) -> None:
        try:
            if after_seconds:
                await asyncio.sleep(after_seconds)
            await self.start_one()
        except Exception as error:
            self._failures += 1
            if not isinstance(error, StartFailed):
                log.exception("an instance of %s did not start", self.name)
            self._fail_waiting(error if isinstance(error, StartFailed) else StartFailed(str(error)))
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._starting.discard(task)

    def _fail_waiting(self, error: StartFailed) -> None:
        """Nobody waits for an instance that will not come, unless others are there or on their way."""
        if self.ready or len(self._starting) > 1:
            return
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)

    def _backoff(self) -> float:
        return min(2.0**self._failures - 1.0, MAX_BACKOFF_SECONDS)

    def _end(self, instance: Instance) -> None:
        instance.ready = False
        self.instances.remove(instance)
        self._region.spawn(instance.stop())

    def _exited(self, instance: Instance) -> None:
        """The process ended by itself, or its liveness probe gave it up."""
        if instance in self.instances:
            self.instances.remove(instance)
        self._region.spawn(instance.stop(drain=False))
        if self._waiting:
            self._grow()
