"""The environment, read once. Everything a deployment may set is here, with what to do when it is wrong."""

import re
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.regions import DataRegion

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

_REMEDIES = {
    "DJANGO_SECRET_KEY": "set it to at least 50 random characters, from Secret Manager",
    "VALIDIBOT_DATA_REGION": "set it to AU, US or EU: the region whose data this stack serves",
    "VALIDIBOT_ROLE": "set it to web, worker or job",
    "VALIDIBOT_PUBLIC_HOST": "set it to the host customers use, such as au.validibot.com",
    "VALIDIBOT_DATABASE_HOST": "set it to the socket directory, /cloudsql/<connection name>, or to a host",
    "VALIDIBOT_DATABASE_NAME": "set it to the name of the database",
    "VALIDIBOT_DATABASE_USER": "set it to the service account's email without .gserviceaccount.com",
    "VALIDIBOT_WORKER_URL": "set it to the worker's address, https://validibot-worker-<number>.<location>.run.app",
    "GOOGLE_CLOUD_PROJECT": "set it to the id of the project that the stack lives in",
}


class UnusableEnvironment(Exception):
    """The environment is unusable. The message names each variable, what it holds and the remedy; never a secret."""


class Environment(BaseSettings):
    """One deployment of the application. Frozen: nothing else in the application reads the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    google_cloud_project: Text = Field(validation_alias="GOOGLE_CLOUD_PROJECT")
    data_region: DataRegion = Field(validation_alias="VALIDIBOT_DATA_REGION")
    role: Literal["web", "worker", "job"] = Field(validation_alias="VALIDIBOT_ROLE")
    public_host: Text = Field(validation_alias="VALIDIBOT_PUBLIC_HOST")
    release: str = Field("", validation_alias="VALIDIBOT_RELEASE", pattern=r"^[A-Za-z0-9._-]*$", max_length=128)
    secret_key: SecretStr = Field(validation_alias="DJANGO_SECRET_KEY", min_length=32)
    sentry_dsn: SecretStr | None = Field(None, validation_alias="SENTRY_DSN")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="VALIDIBOT_LOG_LEVEL")

    database_host: Text = Field(validation_alias="VALIDIBOT_DATABASE_HOST")
    database_port: int = Field(5432, validation_alias="VALIDIBOT_DATABASE_PORT", ge=1, le=65535)
    database_name: Text = Field(validation_alias="VALIDIBOT_DATABASE_NAME")
    database_user: Text = Field(validation_alias="VALIDIBOT_DATABASE_USER")
    # Absent everywhere but with a plain Postgres: the workload's access token is the password.
    database_password: SecretStr | None = Field(None, validation_alias="VALIDIBOT_DATABASE_PASSWORD")
    database_pool_max: int = Field(8, validation_alias="VALIDIBOT_DATABASE_POOL_MAX", ge=1, le=100)
    database_row_users: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias="VALIDIBOT_DATABASE_ROW_USERS"
    )

    media_bucket: str = Field("", validation_alias="VALIDIBOT_MEDIA_BUCKET")
    static_bucket: str = Field("", validation_alias="VALIDIBOT_STATIC_BUCKET")
    # Used only without a media bucket: with a plain Postgres on a developer's machine, and in tests.
    media_directory: Path = Field(Path("media"), validation_alias="VALIDIBOT_MEDIA_DIRECTORY")

    # The queues. Without a worker, tasks run in the process that enqueues them: on a developer's machine, and in tests.
    location: str = Field("", validation_alias="VALIDIBOT_LOCATION")
    worker_url: str = Field("", validation_alias="VALIDIBOT_WORKER_URL")
    tasks_service_account: str = Field("", validation_alias="VALIDIBOT_TASKS_SERVICE_ACCOUNT")
    scheduler_service_account: str = Field("", validation_alias="VALIDIBOT_SCHEDULER_SERVICE_ACCOUNT")
    # `id1:base64,id0:base64`, the newest first: what compute signs its callbacks with.
    callback_keys: SecretStr | None = Field(None, validation_alias="VALIDIBOT_CALLBACK_KEYS")
    # The service accounts of jobs that call back with an ID token; separated by commas.
    callback_service_accounts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias="VALIDIBOT_CALLBACK_SERVICE_ACCOUNTS"
    )
    # An EC P-256 or Ed25519 private key, PEM, that credentials are signed with. Without one, no credential is issued.
    credential_key: SecretStr | None = Field(None, validation_alias="VALIDIBOT_CREDENTIAL_KEY")
    slack_endpoint: Text = Field("https://hooks.slack.com", validation_alias="VALIDIBOT_SLACK_ENDPOINT")
    cloud_tasks_endpoint: Text = Field(
        "https://cloudtasks.googleapis.com/v2/", validation_alias="GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT"
    )
    oauth2_endpoint: Text = Field(
        "https://www.googleapis.com/oauth2/", validation_alias="GOOGLE_OAUTH2_CUSTOM_ENDPOINT"
    )

    submission_retention_days: int = Field(30, validation_alias="VALIDIBOT_SUBMISSION_RETENTION_DAYS", ge=1)
    sync_max_bytes: int = Field(512 * 1024, validation_alias="VALIDIBOT_SYNC_MAX_BYTES", ge=0)
    api_requests_per_hour: int = Field(1000, validation_alias="VALIDIBOT_API_REQUESTS_PER_HOUR", ge=1)
    runs_per_minute: int = Field(60, validation_alias="VALIDIBOT_RUNS_PER_MINUTE", ge=1)
    validator_processes: int = Field(2, validation_alias="VALIDIBOT_VALIDATOR_PROCESSES", ge=1, le=32)

    @field_validator("public_host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        if "/" in host or ":" in host or host != host.lower():
            raise ValueError("must be a host name in lower case, without scheme, port or path")
        return host

    @field_validator("worker_url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", url):
            raise ValueError("must be the worker's address, https://<host>, without a path: it is the tokens' audience")
        return url

    @field_validator("database_row_users", "callback_service_accounts", mode="before")
    @classmethod
    def _split(cls, users: object) -> object:
        if isinstance(users, str):
            return tuple(user.strip() for user in users.split(",") if user.strip())
        return users

    @model_validator(mode="after")
    def _media_has_a_place(self) -> Self:
        if self.database_password is None and not self.media_bucket:
            # A deployment that logs in with a token is on Google Cloud, where a directory is lost with its instance.
            raise ValueError("VALIDIBOT_MEDIA_BUCKET is not set: set it to the region's media bucket")
        return self

    @model_validator(mode="after")
    def _queues_have_a_worker(self) -> Self:
        # The worker must know its callers: without, it starts for nobody rather than for everybody.
        is_deployed = self.database_password is None and self.role == "web"
        missing = [name for name, field in _QUEUEING.items() if not getattr(self, field)]
        if missing and (self.role == "worker" or is_deployed or len(missing) < len(_QUEUEING)):
            raise ValueError(f"{', '.join(missing)} not set: the queues need a location, the worker and its callers")
        return self


_QUEUEING = {
    "VALIDIBOT_LOCATION": "location",
    "VALIDIBOT_WORKER_URL": "worker_url",
    "VALIDIBOT_TASKS_SERVICE_ACCOUNT": "tasks_service_account",
    "VALIDIBOT_SCHEDULER_SERVICE_ACCOUNT": "scheduler_service_account",
}


def exit_on_unusable_environment() -> None:
    """For entry points: a wrong setting is the operator's to correct, and needs no traceback."""
    try:
        load()
    except UnusableEnvironment as error:
        sys.exit(f"validibot: {error}")


def load() -> Environment:
    """Read the environment. Raises: UnusableEnvironment with one line per variable that is missing or wrong."""
    try:
        return Environment()
    except ValidationError as error:
        lines = ["the environment is not usable:"]
        for finding in error.errors(include_url=False, include_input=False):
            name = str(finding["loc"][0]) if finding["loc"] else ""
            found = "is not set" if finding["type"] == "missing" else finding["msg"].removeprefix("Value error, ")
            remedy = f": {_REMEDIES[name]}" if name in _REMEDIES else ""
            lines.append(f"  {name} {found}{remedy}" if name else f"  {found}")
        raise UnusableEnvironment("\n".join(lines)) from None
