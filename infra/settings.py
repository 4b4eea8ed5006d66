"""StackSettings: the only place that reads Pulumi config.

Everything that can be wrong in a stack file is found here, before the first resource is registered: a preview
fails with one line per key, which names the key, what it holds, and what it may hold.
"""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import pulumi
import yaml
from annotated_types import Ge, Le
from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from app.regions import DataRegion
from infra.capacity import Demand, max_connections, memory_mib, needed_connections
from infra.regions import REGIONS, RegionSpec

NAMESPACE = "validibot"
PROJECT_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")

# Cloud SQL, "Configure point-in-time recovery": how long each edition keeps the transaction log.
LOG_DAYS_BY_EDITION = {"ENTERPRISE": 7, "ENTERPRISE_PLUS": 14}
MIN_RETAINED_BACKUPS_IN_PRODUCTION = 14
# Cloud Run, "Configure memory limits": the least and the most GiB of an instance.
MEMORY_GIB_BY_CPU: Mapping[str, tuple[float, int]] = {"1": (0.5, 4), "2": (0.5, 8), "4": (2, 16), "8": (4, 32)}
GIB = re.compile(r"[1-9]\d*Gi$")


class SettingsError(Exception):
    """The message has one line per finding: key, value, what is allowed."""


def refuse(template: str, **context: Any) -> NoReturn:
    raise PydanticCustomError("refused", template, context)


class Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=AliasGenerator(alias=to_camel), validate_by_name=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is int:
            raise PydanticCustomError("int_type", "a valid integer")
        return value


class ServiceSettings(Settings):
    """One Cloud Run service. An instance serves `workers` x `threads` requests at a time, each with a connection."""

    cpu: Literal["1", "2", "4", "8"] = "1"
    memory: str = "1Gi"
    min_instances: int = Field(default=0, ge=0, le=100)
    max_instances: int = Field(default=4, ge=1, le=100)
    workers: int = Field(default=2, ge=1, le=16)
    threads: int = Field(default=8, ge=1, le=64)
    timeout_seconds: int = Field(default=300, ge=1, le=3600)

    @property
    def concurrency(self) -> int:
        """Requests that an instance serves at a time; one more would wait inside it for a thread."""
        return self.workers * self.threads

    @field_validator("cpu", mode="before")
    @classmethod
    def cpu_without_quotes(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def cloud_run_has_such_instances(self) -> Self:
        least, most = MEMORY_GIB_BY_CPU[self.cpu]
        gib = 0.5 if self.memory == "512Mi" else float(self.memory.removesuffix("Gi")) if GIB.match(self.memory) else 0
        if not least <= gib <= most:
            refuse(
                "memory is {memory}; with {cpu} cpu allowed are {least} to {most}Gi",
                memory=self.memory,
                cpu=self.cpu,
                least="512Mi, 1Gi" if least < 1 else f"{least:.0f}Gi",
                most=most,
            )
        return self

    @model_validator(mode="after")
    def instances_are_a_range(self) -> Self:
        if self.min_instances > self.max_instances:
            refuse(
                "minInstances is {low}, more than maxInstances, {high}: raise maxInstances or lower minInstances",
                low=self.min_instances,
                high=self.max_instances,
            )
        return self


class WorkerSettings(ServiceSettings):
    """Fewer at a time, and longer: what reaches the worker is heavier than a page."""

    workers: int = Field(default=1, ge=1, le=16)
    timeout_seconds: int = Field(default=900, ge=1, le=3600)


class DatabaseSettings(Settings):
    tier: str = "db-custom-2-8192"
    edition: Literal["ENTERPRISE", "ENTERPRISE_PLUS"] = "ENTERPRISE"
    availability: Literal["REGIONAL", "ZONAL"] = "REGIONAL"
    disk_size_gb: int = Field(default=20, ge=10, le=65536)
    disk_max_gb: int = Field(default=200, ge=10, le=65536)
    transaction_log_retention_days: int = Field(default=7, ge=1)
    retained_backups: int = Field(default=14, ge=1, le=365)

    @model_validator(mode="after")
    def google_accepts_it(self) -> Self:
        most = LOG_DAYS_BY_EDITION[self.edition]
        if self.transaction_log_retention_days > most:
            refuse(
                "transactionLogRetentionDays is {days}, but {edition} keeps the transaction log for 1 to {most} days: "
                "lower it{or_else}",
                days=self.transaction_log_retention_days,
                edition=self.edition,
                most=most,
                or_else=" or choose edition ENTERPRISE_PLUS (1 to 14)" if self.edition == "ENTERPRISE" else "",
            )
        if self.transaction_log_retention_days > self.retained_backups:
            # "The number of days of transaction log must not exceed the number of backups": without the
            # backup that a log continues from, the log restores nothing.
            refuse(
                "retainedBackups is {backups}, fewer than transactionLogRetentionDays, {days}: raise retainedBackups",
                backups=self.retained_backups,
                days=self.transaction_log_retention_days,
            )
        if self.disk_max_gb < self.disk_size_gb:
            refuse(
                "diskMaxGb is {most}, less than diskSizeGb, {size}: raise diskMaxGb",
                most=self.disk_max_gb,
                size=self.disk_size_gb,
            )
        memory = memory_mib(self.tier)
        if memory is None:
            refuse(
                "tier is {tier}; allowed are db-custom-<vCPU>-<MiB> (1 or an even number of vCPU, at least 3840 MiB, "
                "0.9 to 6.5 GiB for each vCPU, a multiple of 256), db-perf-optimized-N-<vCPU>, db-f1-micro, "
                "db-g1-small",
                tier=self.tier,
            )
        if self.tier.startswith("db-perf-") != (self.edition == "ENTERPRISE_PLUS"):
            refuse(
                "tier is {tier}, but edition {edition} has only {has}",
                tier=self.tier,
                edition=self.edition,
                has="db-perf-optimized-N-*" if self.edition == "ENTERPRISE_PLUS" else "db-custom-* and shared cores",
            )
        return self


class StackSettings(Settings):
    """One stack: a data region in a project of its own."""

    stack: str
    data_region: DataRegion
    project_id: str
    production: bool
    # Off only to take a stack down: `pulumi up` once with false, and then `pulumi destroy`.
    deletion_protection: bool = True
    public_host: str = ""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_retention_days: int = Field(default=30, ge=1, le=3650)
    web: ServiceSettings = ServiceSettings()
    worker: WorkerSettings = WorkerSettings()
    database: DatabaseSettings = DatabaseSettings()

    @property
    def region(self) -> RegionSpec:
        return REGIONS[self.data_region]

    @property
    def host(self) -> str:
        return self.public_host or self.data_region.public_host

    @property
    def labels(self) -> dict[str, str]:
        return {"data-region": self.data_region.value.lower(), "stack": self.stack}

    @property
    def max_connections(self) -> int:
        return max_connections(self.database.tier)

    @model_validator(mode="after")
    def names_are_well_formed(self) -> Self:
        if not PROJECT_ID.fullmatch(self.project_id):
            refuse(
                "projectId is {project_id}; allowed are 6 to 30 lower-case letters, digits and hyphens, "
                "a letter first and no hyphen last",
                project_id=self.project_id,
            )
        if self.public_host and not HOST.fullmatch(self.public_host):
            refuse("publicHost is {host}; allowed is a host name such as au.validibot.com", host=self.public_host)
        return self

    @model_validator(mode="after")
    def production_is_safe(self) -> Self:
        if not self.production:
            return self
        if self.database.retained_backups < MIN_RETAINED_BACKUPS_IN_PRODUCTION:
            refuse(
                "database.retainedBackups is {backups}; in production {least} to 365 are allowed",
                backups=self.database.retained_backups,
                least=MIN_RETAINED_BACKUPS_IN_PRODUCTION,
            )
        if self.database.availability != "REGIONAL":
            refuse("database.availability is ZONAL; in production only REGIONAL is allowed")
        if not self.database.tier.startswith(("db-custom-", "db-perf-")):
            refuse(
                "database.tier is {tier}, a shared core; in production only db-custom-* and db-perf-* are allowed",
                tier=self.database.tier,
            )
        if self.web.min_instances < 1:
            refuse("web.minInstances is 0; in production 1 to 100 are allowed, or the first visitor waits for a start")
        return self

    @model_validator(mode="after")
    def connections_suffice(self) -> Self:
        demands = tuple(
            Demand(max_instances=service.max_instances, connections=service.concurrency)
            for service in (self.web, self.worker)
        )
        needed = needed_connections(demands)
        if needed > self.max_connections:
            refuse(
                "web.maxInstances is {web} (each {web_each} connections) and worker.maxInstances {worker} (each "
                "{worker_each}): with two revisions during a rollout and a reserve they may open {needed} connections, "
                "but database.tier {tier} allows {allowed}: lower maxInstances, workers or threads, or choose a "
                "larger tier",
                web=self.web.max_instances,
                web_each=self.web.concurrency,
                worker=self.worker.max_instances,
                worker_each=self.worker.concurrency,
                needed=needed,
                tier=self.database.tier,
                allowed=self.max_connections,
            )
        return self

    @classmethod
    def from_pulumi(cls) -> "StackSettings":
        """Read the running stack's config.

        Raises:
            pulumi.RunError: with every finding; Pulumi prints its message without a traceback.
        """
        stack = pulumi.get_stack()
        try:
            settings = cls.parse(stack, pulumi.runtime.config.CONFIG.get())
            refuse_shared_projects(settings, Path(pulumi.runtime.get_root_directory()))
        except SettingsError as error:
            raise pulumi.RunError(str(error)) from None
        if not settings.deletion_protection:
            pulumi.log.warn(f"{NAMESPACE}:deletionProtection is false: `pulumi destroy` deletes everything, data too")
        return settings

    @classmethod
    def parse(cls, stack: str, config: Mapping[str, str]) -> "StackSettings":
        """Settings from config as Pulumi hands it over: `validibot:key` to text, objects as JSON.

        Raises:
            SettingsError: with every finding.
        """
        prefix = f"{NAMESPACE}:"
        values = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        objects = {name for name, field in cls.model_fields.items() if isinstance(field.default, Settings)}
        parsed = {key: object_or_text(value) if key in objects else value for key, value in values.items()}
        findings: list[str] = []
        if "stack" in parsed:
            findings.append(f"{prefix}stack is not a setting: the stack's name is given on the command line")
        try:
            settings = cls.model_validate({**parsed, "stack": stack})
        except ValidationError as error:
            findings += [describe(detail) for detail in error.errors()]
        if findings:
            raise SettingsError(f"stack {stack} has wrong settings:\n" + "\n".join(f"  {line}" for line in findings))
        return settings


def object_or_text(value: str) -> Any:
    """Config holds objects as JSON. What is no JSON stays as it is, for pydantic to refuse."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def describe(detail: ErrorDetails) -> str:
    """One finding of pydantic's, as a line that names the key and what it may hold."""
    key = f"{NAMESPACE}:" + ".".join(map(str, detail["loc"]))
    wanted = detail["msg"].removeprefix("Input should be ")
    match detail["type"]:
        case "extra_forbidden":
            return f"{key} is not a setting{did_you_mean(detail)}"
        case "missing":
            return f"{key} is missing{allowed_for(detail)}"
        case "refused":
            # A rule over several keys begins with the key's own name.
            return f"{NAMESPACE}:" + ".".join([*map(str, detail["loc"]), detail["msg"]])
        case "bool_type" | "bool_parsing":
            return f"{key} is {detail['input']!r}; allowed: true, false"
        case "model_type":
            return f"{key} is {detail['input']!r}; allowed is an object, key by key"
        case _:
            return f"{key} is {detail['input']!r}; allowed: {range_of(detail) or wanted}"


def range_of(detail: ErrorDetails) -> str | None:
    """`10 to 65536` for a whole number with two bounds; None for anything else."""
    for name, field in model_at(detail["loc"][:-1]).model_fields.items():
        if to_camel(name) == detail["loc"][-1] and field.annotation is int:
            low = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
            high = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
            return f"whole numbers from {low} to {high}" if high is not None else f"whole numbers from {low}"
    return None


def model_at(path: tuple[int | str, ...]) -> type[Settings]:
    model: type[Settings] = StackSettings
    for part in path:
        for name, field in model.model_fields.items():
            if part == to_camel(name) and isinstance(field.default, Settings):
                model = type(field.default)
    return model


def did_you_mean(detail: ErrorDetails) -> str:
    allowed = sorted(to_camel(name) for name in model_at(detail["loc"][:-1]).model_fields if name != "stack")
    near = difflib.get_close_matches(str(detail["loc"][-1]), allowed, n=1)
    return f"; did you mean {near[0]}?" if near else f"; settings are {', '.join(allowed)}"


def allowed_for(detail: ErrorDetails) -> str:
    """What a key that is missing may hold."""
    allowed = {
        "dataRegion": "allowed are AU, US, EU",
        "projectId": "allowed is the id of a Google Cloud project that no other stack uses",
        "production": "allowed are true, false",
    }
    return f"; {allowed[str(detail['loc'][-1])]}"


def refuse_shared_projects(settings: StackSettings, directory: Path) -> None:
    """Each stack has a project of its own, or a `destroy` of one takes the other with it.

    Raises:
        SettingsError: the stack file of another stack names the same project, or cannot be read.
    """
    for file in sorted(directory.glob("Pulumi.*.yaml")):
        other = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
        if other == settings.stack:
            continue
        try:
            content = yaml.safe_load(file.read_text())
        except yaml.YAMLError as error:
            raise SettingsError(
                f"{file.name} is no YAML, so nobody can say whether it names the same project: {error}"
            ) from None
        config = (content.get("config") if isinstance(content, dict) else None) or {}
        if config.get(f"{NAMESPACE}:projectId") == settings.project_id:
            raise SettingsError(
                f"{NAMESPACE}:projectId is {settings.project_id}, which {file.name} names as well; "
                "allowed is a project that no other stack uses"
            )
