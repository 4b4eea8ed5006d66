"""Where callbacks arrive: `/callbacks/<kind>/<id>` on the web service, `/internal/callbacks/<kind>/<id>` on the worker.

Compute outside Google Cloud reaches the first and signs with a shared key; a Cloud Run job may reach the second with
an ID token of its service account. Nothing of a body is looked at before its sender is known.
"""

import hashlib
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Literal

import structlog
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.callbacks.models import CallbackReceipt
from app.callbacks.signing import Keyring, Signature, Unauthentic
from app.cloud.id_tokens import InvalidToken, KeysUnavailable, verified_email
from app.internal.callers import google_keys
from app.settings import env
from app.simulations import jobs
from app.simulations.models import SimulationJob
from app.validations.engines import strictjson
from app.validations.engines.results import Refused
from app.web import bodies, json_bodies
from app.web.problems import Problem, of_status

log = structlog.get_logger(__name__)

MAX_BODY_BYTES: Final = 64 * 1024  # a callback names an output; it does not bring it


class SimulationReport(BaseModel):
    """What compute says about a simulation. The output envelope is written before the callback is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["SUCCESS", "FAILED"]
    output_envelope: str = Field("", max_length=500, description="Name of the object in the region's media bucket.")
    output_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    code: str = Field("", max_length=100)
    detail: str = Field("", max_length=1000)
    is_retryable: bool = False


def _simulation(job_id: uuid.UUID, body: bytes) -> str:
    value = strictjson.loads(strictjson.decode(body, "body"), "body")
    json_bodies.refuse_unstorable(value)
    report = SimulationReport.model_validate(value, strict=True)
    return str(jobs.finish(job_id, jobs.Report(**report.model_dump())).state)


_KINDS: Final[dict[str, Callable[[uuid.UUID, bytes], str]]] = {"simulation": _simulation}


@cache
def keyring() -> Keyring:
    """Raises: ImproperlyConfigured. Without keys, nobody can sign."""
    try:
        return Keyring.parse(env.callback_keys.get_secret_value() if env.callback_keys else "")
    except ValueError as error:
        raise ImproperlyConfigured(f"VALIDIBOT_CALLBACK_KEYS: {error}") from None


@csrf_exempt
@require_POST
def receive(request: HttpRequest, kind: str, target: uuid.UUID) -> HttpResponse:
    try:
        body = bodies.read(request, MAX_BODY_BYTES)
        sender, nonce = _authenticate(request, body)
        structlog.contextvars.bind_contextvars(caller=sender)
        return _accept(kind, target, body, sender, nonce)
    except Unauthentic as error:
        # Into the one line that the request log writes; the caller learns no more than the status says.
        structlog.contextvars.bind_contextvars(refused=str(error))
        return Problem(
            "unauthenticated", "The request is not authenticated", status=401, detail="the callback is not accepted"
        ).response(request)
    except KeysUnavailable as error:
        structlog.contextvars.bind_contextvars(refused=str(error))
        return Problem(
            "busy", "The caller cannot be checked", status=503, detail="try again", headers={"Retry-After": "5"}
        ).response(request)
    except (OperationalError, InterfaceError) as error:
        log.error("the database failed", reason=str(error)[:500])
        return Problem(
            "database-unavailable",
            "The database does not answer",
            status=503,
            detail="try again shortly",
            headers={"Retry-After": "5"},
        ).response(request)
    except Refused as refused:
        return Problem.of_refusal(refused).response(request)
    except Problem as problem:
        return problem.response(request)


def _authenticate(request: HttpRequest, body: bytes) -> tuple[str, str]:
    """Who sent it, and the nonce. Raises: Unauthentic; KeysUnavailable."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and "Validibot-Signature" not in request.headers:
        audience = env.worker_url if env.role == "worker" else f"https://{env.public_host}"
        try:
            email = verified_email(token.strip(), audience, google_keys())
        except InvalidToken as error:
            raise Unauthentic(str(error)) from None
        if email not in env.callback_service_accounts:
            raise Unauthentic(f"{email} is not a service account that calls back")
        # A token may be used again while it lives, so there is no nonce of the caller's.
        return email, uuid.uuid4().hex
    signature = Signature.of(request.headers)
    signature.verify(keyring(), str(request.method), request.path, body, timezone.now())
    return signature.key_id, signature.nonce


def _accept(kind: str, target: uuid.UUID, body: bytes, sender: str, nonce: str) -> HttpResponse:
    """The receipt, the effect and what follows from it are one transaction. Raises: Unauthentic, Refused, Problem."""
    handler = _KINDS.get(kind)
    if handler is None:
        raise of_status(404)
    body_sha256 = hashlib.sha256(body).hexdigest()
    try:
        with transaction.atomic():
            try:
                with transaction.atomic():
                    receipt = CallbackReceipt.objects.create(
                        nonce=nonce, kind=kind, target=target, body_sha256=body_sha256, signed_by=sender, answer={}
                    )
            except IntegrityError:
                raise Unauthentic("the nonce was used before: a replay") from None
            same = CallbackReceipt.objects.filter(kind=kind, target=target, body_sha256=body_sha256)
            first = same.exclude(pk=receipt.pk).order_by("pk").first()
            answer = first.answer if first else {"receipt": str(uuid.uuid4()), "state": handler(target, body)}
            CallbackReceipt.objects.filter(pk=receipt.pk).update(answer=answer)
    except SimulationJob.DoesNotExist:
        raise of_status(404) from None
    except jobs.AlreadyEnded as ended:
        raise Problem("already-finished", "The job has ended", status=409, detail=str(ended)) from None
    except (ValidationError, strictjson.SyntaxProblem) as error:
        raise Problem("invalid-request", "The request is not valid", status=422, detail=_reason(error)) from None
    return JsonResponse(answer)


def _reason(error: ValidationError | strictjson.SyntaxProblem) -> str:
    if isinstance(error, strictjson.SyntaxProblem):
        return f"the body is not JSON: {error.message}"
    found: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False, include_input=False)]
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in found)
