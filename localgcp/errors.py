"""What an API refuses, in Google's words and JSON.

ApiError
├── InvalidArgument, FailedPrecondition                 400
├── Unauthenticated                                     401
├── PermissionDenied                                    403
├── NotFound                                            404
├── AlreadyExists, Aborted                              409
├── PreconditionFailed                                  412 (APIs that predate google.rpc, Cloud Storage above all)
├── ResourceExhausted                                   429
├── Internal                                            500
├── Unimplemented                                       501
└── Unavailable                                         503
"""

from collections.abc import Mapping, Sequence
from typing import Any


class ApiError(Exception):
    """An answer other than 2xx.

    `reason` is the machine-readable word that older APIs put into `errors[].reason` (`conflict`, `required`);
    `details` are `google.rpc` details in their JSON form, each with its `@type`.
    """

    status = 500
    code = "INTERNAL"
    default_reason = "internalError"
    #: Number of the code in google.rpc.Code, which operations carry in their `error`.
    rpc_code = 13

    def __init__(
        self, message: str, *, reason: str | None = None, details: Sequence[Mapping[str, Any]] = (), location: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.details = [dict(detail) for detail in details]
        self.location = location

    def to_json(self) -> dict[str, Any]:
        """The body of the answer: both the google.rpc form and the `errors` list of the older APIs."""
        error: dict[str, Any] = {
            "code": self.status,
            "message": self.message,
            "status": self.code,
            "errors": [{"message": self.message, "domain": "global", "reason": self.reason}],
        }
        if self.location:
            error["errors"][0] |= {"location": self.location, "locationType": "parameter"}
        if self.details:
            error["details"] = self.details
        return {"error": error}

    def to_status(self) -> dict[str, Any]:
        """The same as a `google.rpc.Status`, as operations carry it."""
        status: dict[str, Any] = {"code": self.rpc_code, "message": self.message}
        if self.details:
            status["details"] = self.details
        return status


class InvalidArgument(ApiError):
    status, code, default_reason, rpc_code = 400, "INVALID_ARGUMENT", "badRequest", 3


class FailedPrecondition(ApiError):
    status, code, default_reason, rpc_code = 400, "FAILED_PRECONDITION", "failedPrecondition", 9


class Unauthenticated(ApiError):
    status, code, default_reason, rpc_code = 401, "UNAUTHENTICATED", "authError", 16


class PermissionDenied(ApiError):
    status, code, default_reason, rpc_code = 403, "PERMISSION_DENIED", "forbidden", 7


class NotFound(ApiError):
    status, code, default_reason, rpc_code = 404, "NOT_FOUND", "notFound", 5


class AlreadyExists(ApiError):
    status, code, default_reason, rpc_code = 409, "ALREADY_EXISTS", "alreadyExists", 6


class Aborted(ApiError):
    status, code, default_reason, rpc_code = 409, "ABORTED", "conflict", 10


class PreconditionFailed(ApiError):
    status, code, default_reason, rpc_code = 412, "FAILED_PRECONDITION", "conditionNotMet", 9


class ResourceExhausted(ApiError):
    status, code, default_reason, rpc_code = 429, "RESOURCE_EXHAUSTED", "rateLimitExceeded", 8


class Internal(ApiError):
    """A fault of localgcp itself, never of the caller."""


class Unimplemented(ApiError):
    """The method exists at Google, and has no behaviour here. Never answered as if it had worked."""

    status, code, default_reason, rpc_code = 501, "UNIMPLEMENTED", "notImplemented", 12


class Unavailable(ApiError):
    status, code, default_reason, rpc_code = 503, "UNAVAILABLE", "backendError", 14
