"""Faults on request: what goes wrong in a real region, made to happen here.

A fault is kept in memory only: a restart of localgcp heals everything. `target` is a shell pattern over what the fault
can hit: an API's name (`cloudtasks`), `run/<service>` for requests to a service, a queue's id for `deliver-twice`.
"""

import asyncio
import fnmatch
import random
import threading
import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from localgcp.errors import InvalidArgument, Unavailable

Kind = Literal["unavailable", "delay", "drop-response", "refuse", "deliver-twice"]


class Fault(BaseModel):
    """`rate` is the share of requests hit, from 0 to 1; `count` the number of hits after which the fault is over."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    target: str = Field(min_length=1)
    rate: float = Field(default=1.0, gt=0, le=1)
    count: int | None = Field(default=None, ge=1)
    seconds: float = Field(default=1.0, ge=0, le=3600)
    id: str = Field(default_factory=lambda: uuid.uuid4().hex[:8])
    hits: int = 0


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults = [*self._faults, fault]
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults = []

    def all(self) -> list[Fault]:
        return list(self._faults)

    def hit(self, kind: Kind, target: str) -> Fault | None:
        """The fault that strikes this request, if one does."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.kind != kind or not fnmatch.fnmatchcase(target, fault.target):
                    continue
                if fault.count is not None and fault.hits >= fault.count:
                    continue
                if random.random() < fault.rate:  # noqa: S311 (a dice roll, not a secret)
                    fault.hits += 1
                    return fault
        return None

    def duplicate(self, task_name: str) -> float | None:
        """How many seconds after its beginning a delivery of a task is to be made again; None when it is not.

        A moment within the fault's `seconds`: the first may be under way still, or done.
        """
        fault = self.hit("deliver-twice", task_name.split("/")[-3])
        return None if fault is None else random.uniform(0, fault.seconds)  # noqa: S311

    async def before(self, target: str) -> None:
        """Delay, then fail, as asked. Raises Unavailable."""
        if not self._faults:
            return
        if (fault := self.hit("delay", target)) is not None:
            await asyncio.sleep(fault.seconds)
        if self.hit("unavailable", target) is not None:
            raise Unavailable("The service is currently unavailable.")

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET`, `POST` and `DELETE` of `/_localgcp/faults`."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                fault = Fault.model_validate_json(await request.body())
            except ValidationError as error:
                refused = InvalidArgument(f"The fault is not valid: {error}")
                return JSONResponse(refused.to_json(), status_code=400)
            return JSONResponse(self.add(fault).model_dump())
        if request.method == "DELETE":
            self.clear()
            return Response(status_code=204)
        return JSONResponse({"faults": [fault.model_dump() for fault in self.all()]})
