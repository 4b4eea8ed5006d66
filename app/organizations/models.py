"""Organisations, their API keys, and how often a key was used."""

import hashlib
import re
import secrets
from datetime import timedelta
from typing import ClassVar, Final, NamedTuple, Self

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone

from app.regions import DataRegion

_REGIONS = [(region.value, region.value) for region in DataRegion]
KEY_TEXT: Final = re.compile(r"vb_(au|us|eu)_([A-Za-z0-9]{8})_([A-Za-z0-9_-]{43})")
_USE_IS_NOTED_EVERY: Final = timedelta(minutes=10)


class Organization(models.Model):
    """A customer. Its data lives in one region for ever: a trigger in the database refuses to change `data_region`."""

    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    data_region = models.CharField(max_length=2, choices=_REGIONS)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["slug"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(data_region__in=[region.value for region in DataRegion]),
                name="organization_data_region_is_known",
            )
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def region(self) -> DataRegion:
        return DataRegion(self.data_region)

    def clean(self) -> None:
        held = type(self).objects.filter(pk=self.pk).values_list("data_region", flat=True).first()
        if held is not None and held != self.data_region:
            raise ValidationError(
                {"data_region": f"is {held} and cannot change: create the organisation anew in {self.data_region}"}
            )


class Scope(models.TextChoices):
    READ = "validations:read"
    WRITE = "validations:write"
    WORKFLOWS_READ = "workflows:read"
    WORKFLOWS_WRITE = "workflows:write"


def every_scope() -> list[str]:
    return [scope.value for scope in Scope]


class ApiKeyText(NamedTuple):
    """A key as its owner holds it. 256 random bits: a plain hash cannot be searched for it."""

    text: str
    region: DataRegion
    prefix: str

    @classmethod
    def generate(cls, region: DataRegion) -> Self:
        prefix = secrets.token_hex(4)
        return cls(f"vb_{region.value.lower()}_{prefix}_{secrets.token_urlsafe(32)}", region, prefix)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = KEY_TEXT.fullmatch(text)
        return cls(text, DataRegion(match[1].upper()), match[2]) if match else None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()


class ApiKeys(models.Manager["ApiKey"]):
    def authenticate(self, text: str) -> "ApiKey | None":
        """The live key with this text, its organisation loaded; one query."""
        key_text = ApiKeyText.parse(text)
        if key_text is None:
            return None
        try:
            return self.select_related("organization").get(sha256=key_text.sha256, revoked_at=None)
        except self.model.DoesNotExist:
            return None


class ApiKey(models.Model):
    """A secret of an organisation. Only its prefix, for recognition, and its SHA-256 are stored."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100, blank=True, default="")
    prefix = models.CharField(max_length=8, blank=True, default="", editable=False)
    sha256 = models.CharField(
        max_length=64, unique=True, validators=[RegexValidator(r"^[0-9a-f]{64}$", "must be 64 hexadecimal digits")]
    )
    scopes = models.JSONField(default=every_scope)
    requests_per_hour = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: the region's limit (VALIDIBOT_API_REQUESTS_PER_HOUR)."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[ApiKeys] = ApiKeys()

    class Meta:
        ordering: ClassVar = ["organization", "-created_at"]

    def __str__(self) -> str:
        return f"{self.prefix or self.sha256[:8]} of {self.organization}"

    def clean(self) -> None:
        known = every_scope()
        if not isinstance(self.scopes, list) or any(scope not in known for scope in self.scopes):
            raise ValidationError({"scopes": f"must be a list, of some of these: {', '.join(known)}"})

    def allows(self, scope: Scope) -> bool:
        return scope.value in self.scopes

    def note_use(self) -> None:
        """Keep `last_used_at` true to ten minutes. A write per request would cost more than it tells."""
        now = timezone.now()
        if self.last_used_at is None or now - self.last_used_at > _USE_IS_NOTED_EVERY:
            ApiKey.objects.filter(pk=self.pk).update(last_used_at=now)


class RateWindow(models.Model):
    """How many requests a key has made in one hour. One row per key: a new hour starts the count again."""

    api_key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, primary_key=True)
    hour = models.DateTimeField()
    requests = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.requests} since {self.hour}"

    # The count may be lost with a crash of Postgres, so the commit need not wait for the disk: that is most of what
    # the statement costs. One statement, hence one transaction, and exact under concurrency.
    COUNT: ClassVar[str] = """
        WITH relaxed AS (SELECT set_config('synchronous_commit', 'off', true))
        INSERT INTO organizations_ratewindow AS held (api_key_id, hour, requests)
        SELECT %s, date_trunc('hour', now()), 1 FROM relaxed
        ON CONFLICT (api_key_id) DO UPDATE SET
            requests = CASE WHEN held.hour = excluded.hour THEN held.requests + 1 ELSE 1 END,
            hour = excluded.hour
        RETURNING requests, ceil(extract(epoch FROM hour + interval '1 hour' - now()))::int
    """

    @classmethod
    def count(cls, key: ApiKey) -> tuple[int, int]:
        """Count one request: the requests of this hour, and the seconds until the next."""
        with connection.cursor() as cursor:
            cursor.execute(cls.COUNT, [key.pk])
            requests, seconds = cursor.fetchone()
        return int(requests), int(seconds)
