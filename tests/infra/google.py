"""The few answers of Google's that ImageBuild and JobRun wait for, behind the real HTTP client."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra.rest import Google

Answer = httpx.Response
Handler = Callable[[httpx.Request], Answer]


@dataclass
class FakeGoogle:
    """Answers by method and path. `requests` are those that arrived, in order."""

    handlers: dict[str, list[Handler]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)

    def on(self, method_and_path: str, *answers: Any, status: int = 200) -> None:
        """Answer with each of `answers` in turn, and with the last from then on."""

        def always(body: Any) -> Handler:
            return lambda _request: Answer(status, json=body)

        self.handlers[method_and_path] = [answer if callable(answer) else always(answer) for answer in answers]

    def __call__(self, request: httpx.Request) -> Answer:
        self.requests.append(request)
        for pattern, answers in self.handlers.items():
            if re.fullmatch(pattern, f"{request.method} {request.url.path}"):
                return (answers.pop(0) if len(answers) > 1 else answers[0])(request)
        return Answer(404, json={"error": {"message": f"nothing at {request.method} {request.url.path}"}})

    def client(self) -> Google:
        return Google(httpx.Client(transport=httpx.MockTransport(self)))

    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]
