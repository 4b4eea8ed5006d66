"""Django's settings: one module for every deployment. What differs between deployments comes from `env`."""

from pathlib import Path
from typing import Any

from app import logs
from app.environment import load
from app.queues import QUEUES

env = load()

SECRET_KEY = env.secret_key.get_secret_value()
DEBUG = False
ROOT_URLCONF = "app.urls"
WSGI_APPLICATION = "app.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_tasks",
    "ninja",
    "app.callbacks",
    "app.dead_letters",
    "app.idempotency",
    "app.organizations",
    "app.simulations",
    "app.validations",
    "app.web",
    "app.webhooks",
    "app.workflows",
]

# The worker has no visitors: no sessions, no forms, no pages.
_INTERNAL_MIDDLEWARE = [
    "app.web.middleware.request_log",
    "app.web.middleware.health",
    "django.middleware.security.SecurityMiddleware",
]
_PUBLIC_MIDDLEWARE = [
    "app.web.middleware.request_log",
    # Before everything that looks at the host: a probe asks by address.
    "app.web.middleware.health",
    "django.middleware.security.SecurityMiddleware",
    "app.web.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "app.web.middleware.PagesWithoutDatabase",
]
MIDDLEWARE = _INTERNAL_MIDDLEWARE if env.role == "worker" else _PUBLIC_MIDDLEWARE

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]

# --- Hosts and transport. TLS ends at the load balancer, which says so in X-Forwarded-Proto and redirects plain HTTP.
# The worker is called by Cloud Tasks and Cloud Scheduler under its Cloud Run address, and checks every caller itself.
ALLOWED_HOSTS = [env.public_host] if env.role != "worker" else [".run.app"]
CSRF_TRUSTED_ORIGINS = [f"https://{env.public_host}"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # of forms; the API reads its bodies itself, with a limit of its own

# --- Database
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "app.cloud.postgresql",
        "HOST": env.database_host,
        "PORT": env.database_port,
        "NAME": env.database_name,
        "USER": env.database_user,
        "PASSWORD": env.database_password.get_secret_value() if env.database_password else "",
        "CONN_MAX_AGE": 0,  # Django's connections live in the pool
        "CONN_HEALTH_CHECKS": True,  # a pooled connection does not survive a restart of Postgres
        "OPTIONS": {
            "connect_timeout": 5,
            "application_name": f"validibot-{env.role}",
            "pool": {
                "min_size": 0,
                "max_size": env.database_pool_max,
                "timeout": 3,
                "max_idle": 300,
                # The pool's own attempts back off up to this, and requests wait for them: after an outage of an hour
                # the default would keep everybody waiting for minutes after Postgres is back.
                "reconnect_timeout": 0.5,
            },
        },
    }
}

# --- Tasks. What is enqueued is an id; the row is what counts.
TASKS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "app.tasking.backends.CloudTasksBackend",
        "QUEUES": [spec.name for spec in QUEUES],
        "OPTIONS": {
            "client": "app.cloud.tasks.client",
            "url": env.worker_url,
            "service_account": env.tasks_service_account,
            "dispatch_deadline_seconds": {spec.name: spec.dispatch_deadline_seconds for spec in QUEUES},
        },
    }
    if env.worker_url
    else {"BACKEND": "app.tasking.backends.ImmediateBackend", "QUEUES": [spec.name for spec in QUEUES]}
}

# --- Files. Nobody reads media by URL: the application streams it, or signs an address for minutes.
STORAGES: dict[str, dict[str, Any]] = {
    "default": (
        {"BACKEND": "app.cloud.storage.BucketStorage", "OPTIONS": {"bucket_name": env.media_bucket}}
        if env.media_bucket
        else {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": env.media_directory}}
    ),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# The release is in the address, so that a browser and the CDN may keep a file for ever, and two revisions that answer
# at once each find their own files.
STATIC_URL = f"/static/{env.release}/" if env.release else "/static/"
STATIC_ROOT = Path("staticfiles")

# --- Logs. Django's own configuration is replaced as a whole.
LOGGING_CONFIG = None
logs.configure(project=env.google_cloud_project, level=env.log_level)

if env.sentry_dsn:
    import sentry_sdk

    sentry_sdk.init(
        dsn=env.sentry_dsn.get_secret_value(),
        release=env.release or None,
        environment=f"{env.data_region.value}-{env.role}",
        send_default_pii=False,
        # A submission belongs to one region; an event must not carry it to another.
        max_request_body_size="never",
        include_local_variables=False,
    )
