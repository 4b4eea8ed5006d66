"""gunicorn: one process with threads, for the one vCPU of an instance. Validators run in processes of their own."""

import os
from pathlib import Path
from typing import Any

from app import logs
from app.environment import exit_on_unusable_environment

# In the master, before it forks: workers that cannot start would be started again and again.
exit_on_unusable_environment()

# Django configures the same once it is loaded; this is for what gunicorn says before.
logs.configure(project=os.environ.get("GOOGLE_CLOUD_PROJECT", ""), level="INFO")

# Cloud Run reaches a container on all interfaces; whoever runs it without one sets HOST to the loopback address.
bind = f"{os.environ.get('HOST', '0.0.0.0')}:{os.environ.get('PORT', '8080')}"  # noqa: S104  # as said above
worker_class = "gthread"
workers = int(os.environ.get("WEB_WORKERS", "1"))
threads = int(os.environ.get("WEB_THREADS", "8"))
# Cloud Run bounds a request (300 s web, 900 s worker). gunicorn's own timeout watches the worker's heartbeat.
timeout = 60
graceful_timeout = 9  # Cloud Run sends SIGKILL ten seconds after SIGTERM
keepalive = 75  # longer than a proxy keeps its idle connections, so that it never writes into a closing one
# A slow disk must not stop heartbeats. The file in it has a random name and is unlinked at once.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True
accesslog = None  # app.web.middleware logs each request with its trace
errorlog = "-"
logger_class = "app.web.gunicorn_logs.Logger"
limit_request_line = 8190  # as long as gunicorn allows: what is longer is answered by gunicorn itself, and with a page
limit_request_fields = 60


def post_worker_init(worker: Any) -> None:
    from app.settings import env
    from app.validations.sandbox import pool

    pool().warm()
    if env.worker_url:
        # Google's client takes a second to load, which the first customer would wait for.
        import app.cloud.tasks  # noqa: F401
