"""What runs now: a fleet per revision, the router's snapshots, and the loop that tends them.

Everything here follows from the stored services and revisions; after a restart it is built again from them.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from localgcp.build.images import image_store
from localgcp.clock import seconds
from localgcp.run import resources
from localgcp.run.fleet import Fleet
from localgcp.run.instance import Instance
from localgcp.run.process import end_orphans
from localgcp.run.program import StartFailed
from localgcp.run.router import Deployment, Router, Target, revision_resource
from localgcp.sql.layout import layout_of
from localgcp.store import Resource

if TYPE_CHECKING:
    from localgcp.region import Region

T = TypeVar("T")
TEND_SECONDS = 1.0

log = logging.getLogger(__name__)
_runtimes: "WeakKeyDictionary[Region, Runtime]" = WeakKeyDictionary()


def runtime_of(region: "Region") -> "Runtime":
    return _runtimes[region]


class Runtime:
    def __init__(self, region: "Region") -> None:
        self._region = region
        self._loop = asyncio.get_running_loop()
        self._fleets: dict[str, Fleet] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._locks_lock = threading.Lock()
        self._tending: asyncio.Task[None] | None = None
        region.run = Router(region)
        _runtimes[region] = self

    async def start(self) -> None:
        await self._region.run_in_thread(self._clean)
        for service in self._services():
            await self.deploy(service)
        self._tending = self._region.spawn(self._tend())

    async def stop(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
        await asyncio.gather(*(fleet.abandon() for fleet in self._fleets.values()), return_exceptions=True)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """From a worker thread: run on the loop and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def lock(self, key: str) -> threading.Lock:
        """One roll-out of a service at a time, in the order in which they were asked for."""
        with self._locks_lock:
            return self._locks.setdefault(key, threading.Lock())

    def fleet(self, revision: Resource) -> Fleet:
        fleet = self._fleets.get(revision.key)
        if fleet is None:
            fleet = self._fleets[revision.key] = self._new_fleet(revision)
        return fleet

    def find_fleet(self, revision_key: str) -> Fleet | None:
        return self._fleets.get(revision_key)

    async def try_out(self, revision: Resource) -> None:
        """Start the first instance of a revision, as Cloud Run does before any traffic. Raises StartFailed."""
        fleet = self.fleet(revision)
        try:
            if not fleet.ready:
                await fleet.start_one()
        except StartFailed:
            del self._fleets[revision.key]
            raise

    async def deploy(self, service: Resource) -> None:
        """Let requests see a service as it is stored, and end what gets none any more."""
        deployment, used = self._deployment(service)
        words = service.key.split("/")
        self._region.run.deploy(deployment, resources.addresses(self._region, words[2], words[4], words[6]))
        minimum = service.get("scaling", {}).get("minInstanceCount", 0)
        for key, fleet in list(self._fleets.items()):
            if key.startswith(f"{service.key}/revisions/") and key not in used:
                del self._fleets[key]
                self._region.spawn(fleet.retire())
        for key, own_minimum in used.items():
            self._fleets[key].minimum = min(max(own_minimum, minimum), self._fleets[key].maximum)
            self._fleets[key].tend()

    async def remove(self, service_key: str) -> None:
        self._region.run.forget(service_key)
        fleets = [key for key in self._fleets if key.startswith(f"{service_key}/revisions/")]
        await asyncio.gather(*(self._fleets.pop(key).retire() for key in fleets))

    async def remove_revision(self, revision_key: str) -> None:
        fleet = self._fleets.pop(revision_key, None)
        if fleet is not None:
            await fleet.retire()

    def _deployment(self, service: Resource) -> tuple[Deployment, dict[str, int]]:
        _, _, project, _, location, _, name = service.key.split("/")
        latest = service.get("latestReadyRevision", "").rpartition("/")[2]
        targets: list[Target] = []
        tags: dict[str, Target] = {}
        used: dict[str, int] = {}
        for traffic in service.get("traffic", ()):
            revision_name = traffic.get("revision", "").rpartition("/")[2] or latest
            revision = self._region.store.find(f"{service.key}/revisions/{revision_name}") if revision_name else None
            if revision is None:
                continue
            target = Target(
                fleet=self.fleet(revision),
                revision=revision_name,
                timeout_seconds=seconds(revision["timeout"]),
                percent=traffic.get("percent", 0),
            )
            used[revision.key] = revision.get("scaling", {}).get("minInstanceCount", 0)
            if target.percent:
                targets.append(target)
            if traffic.get("tag"):
                tags[traffic["tag"]] = target
        hosts = resources.addresses(self._region, project, location, name)
        deployment = Deployment(
            key=service.key,
            project=project,
            location=location,
            service=name,
            ingress=service["ingress"],
            invoker_disabled=bool(service.get("invokerIamDisabled")),
            addresses=tuple(f"https://{host}" for host in hosts),
            custom_audiences=tuple(service.get("customAudiences", ())),
            targets=tuple(targets),
            tags=tags,
        )
        return deployment, used

    def _new_fleet(self, revision: Resource) -> Fleet:
        _, _, project, _, location, _, service, _, name = revision.key.split("/")
        resource = revision_resource(project, location, service, name)

        def write(instance: Instance, log_name: str, entry: Mapping[str, Any]) -> None:
            labels = {"instanceId": instance.id, **entry.get("labels", {})}
            self._region.logs.write_entry(project, log_name, {**entry, "resource": resource, "labels": labels})

        names = {"K_SERVICE": service, "K_REVISION": name, "K_CONFIGURATION": service}
        return Fleet(
            self._region,
            image_store(self._region),
            name=name,
            workload=resources.workload_of(self._region, "Revision", project, location, revision, names),
            concurrency=revision["maxInstanceRequestConcurrency"],
            maximum=revision["scaling"]["maxInstanceCount"],
            write=write,
        )

    def _services(self) -> list[Resource]:
        found = self._region.store.scan("run/projects/")
        return [one for one in found if len(one.key.split("/")) == 7 and "/services/" in one.key]

    def _clean(self) -> None:
        """What a killed region left: processes, their directories, half-made images."""
        end_orphans(self._region)
        shutil.rmtree(self._region.settings.data_dir / "run" / "instances", ignore_errors=True)
        sockets = layout_of(self._region.settings.data_dir).sockets
        if sockets.is_dir():
            for folder in sockets.glob("~*"):
                shutil.rmtree(folder, ignore_errors=True)
        image_store(self._region).clean()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_SECONDS)
            for fleet in list(self._fleets.values()):
                fleet.tend()
