"""Logs as Cloud Logging reads them: one JSON object per line on stdout, with its severity and its trace.

Everything goes through the standard library's handlers, so that Django's, Google's and gunicorn's records look alike.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog

_SECRET_NAMES = re.compile(r"authorization|cookie|password|secret|token|api_key$|_dsn", re.IGNORECASE)
_SECRETS: Final = re.compile(
    r"\bvb_(?:au|us|eu)_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{20,}|\bya29\.[\w.-]+|\beyJ[\w-]+\.[\w.-]+"
)
_SEVERITIES: Final = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}


def configure(*, project: str, level: str) -> None:
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=[])],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda _logger, _name, event: as_entry(event, project),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # The request log says the same with more; Django's own would repeat each 4xx and 5xx.
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    logging.getLogger("django.server").setLevel(logging.ERROR)
    # A probe under a wrong host is nobody's emergency.
    logging.getLogger("django.security.DisallowedHost").setLevel(logging.CRITICAL)


def as_entry(event: MutableMapping[str, Any], project: str) -> dict[str, Any]:
    """An event under Cloud Logging's names, without secrets."""
    entry: dict[str, Any] = {
        "severity": _SEVERITIES.get(str(event.pop("level", "info")), "DEFAULT"),
        "message": event.pop("event", ""),
    }
    if stack := event.pop("exception", None):
        # Error Reporting groups by the stack trace, which it looks for in this field.
        entry["stack_trace"] = stack
    if trace := event.pop("trace_id", None):
        entry["logging.googleapis.com/trace"] = f"projects/{project}/traces/{trace}"
    if span := event.pop("span_id", None):
        entry["logging.googleapis.com/spanId"] = span
    if (sampled := event.pop("trace_sampled", None)) is not None:
        entry["logging.googleapis.com/trace_sampled"] = sampled
    entry.update(event)
    return {name: _scrubbed(name, value) for name, value in entry.items()}


def _scrubbed(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _scrubbed(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(name, item) for item in value]
    if _SECRET_NAMES.search(name):
        return "[removed]"
    if isinstance(value, str):
        return _SECRETS.sub("[removed]", value)
    return value
