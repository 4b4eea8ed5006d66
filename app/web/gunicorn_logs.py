"""gunicorn's own messages, through the application's log format."""

from typing import Any

from gunicorn import glogging  # type: ignore[import-untyped]


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """Leaves the handlers to the root logger, which app.logs configures."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True
