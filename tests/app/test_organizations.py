"""Organisations, keys, regions and limits."""

import hashlib
import re
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from app.organizations.models import ApiKey, ApiKeyText, Organization, RateWindow
from app.regions import DataRegion

BAD_KEYS = {
    "no header": None,
    "another scheme": "Basic dXNlcjpwYXNz",
    "no key": "Bearer",
    "not a key": "Bearer hello",
    "unknown key": f"Bearer {ApiKeyText.generate(DataRegion.AU).text}",
    "key with more behind it": f"Bearer {ApiKeyText.generate(DataRegion.AU).text}x",
}


def client(authorization: str | None) -> Client:
    return Client(headers={"host": "au.validibot.com"} | ({"authorization": authorization} if authorization else {}))


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_request_without_a_live_key_is_refused(db: None, name: str) -> None:
    answer = client(BAD_KEYS[name]).get("/api/validations")

    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")
    assert answer["WWW-Authenticate"] == 'Bearer realm="validibot"'
    assert answer.json()["errors"][0]["field"] == "Authorization"


def test_a_revoked_key_is_refused(api: Client, api_key: ApiKey) -> None:
    assert api.get("/api/validations").status_code == 200
    ApiKey.objects.filter(pk=api_key.pk).update(revoked_at=timezone.now())

    assert api.get("/api/validations").status_code == 401


def test_a_key_needs_the_scope_of_what_it_does(api: Client, api_key: ApiKey) -> None:
    ApiKey.objects.filter(pk=api_key.pk).update(scopes=["validations:read"])

    read, write = api.get("/api/validations"), api.post("/api/validations", {}, content_type="application/json")

    assert (read.status_code, write.status_code) == (200, 403)
    assert write.json()["detail"] == "the key has not the scope validations:write"


def test_only_the_hash_of_a_key_is_stored(api_key: ApiKey, key_text: ApiKeyText) -> None:
    assert re.fullmatch(r"vb_au_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", key_text.text)
    assert api_key.sha256 == hashlib.sha256(key_text.text.encode()).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(k)::text FROM organizations_apikey k")
        [row] = cursor.fetchone() or [""]
    assert key_text.text[-43:] not in row


@pytest.mark.parametrize(("region", "host"), [("US", "us.validibot.com"), ("EU", "eu.validibot.com")])
def test_a_key_of_another_region_is_sent_there_with_nothing_but_the_address(
    db: None, region: str, host: str, django_assert_num_queries: object
) -> None:
    key = ApiKeyText.generate(DataRegion(region))

    answer = client(f"Bearer {key.text}").post("/api/validations?x=1", "{}", content_type="application/json")

    assert (answer.status_code, answer["Location"]) == (308, f"https://{host}/api/validations?x=1")
    assert answer.json()["type"] == "https://validibot.com/problems/other-region"


def test_an_organisation_of_another_region_is_sent_there_even_with_a_key_of_this_one(db: None) -> None:
    organization = Organization.objects.create(slug="us", name="US", data_region="US")
    key = ApiKeyText.generate(DataRegion.AU)
    ApiKey.objects.create(organization=organization, sha256=key.sha256)

    answer = client(f"Bearer {key.text}").get("/api/validations")

    assert (answer.status_code, answer["Location"]) == (308, "https://us.validibot.com/api/validations")


def test_the_database_refuses_to_move_an_organisation(organization: Organization) -> None:
    with pytest.raises(IntegrityError, match="data region of organisation demo is AU and never changes"):
        with transaction.atomic():
            Organization.objects.filter(pk=organization.pk).update(data_region="US")

    organization.data_region = "US"
    with pytest.raises(ValidationError, match="is AU and cannot change"):
        organization.clean()
    with pytest.raises(IntegrityError, match="organization_data_region_is_known"), transaction.atomic():
        Organization.objects.create(slug="x", name="X", data_region="MO")


def test_a_key_over_its_limit_is_told_when_to_come_back(api: Client, api_key: ApiKey) -> None:
    ApiKey.objects.filter(pk=api_key.pk).update(requests_per_hour=2)

    answers = [api.get("/api/validations") for _ in range(3)]

    assert [a.status_code for a in answers] == [200, 200, 429]
    assert 1 <= int(answers[2]["Retry-After"]) <= 3600
    assert answers[2].json()["detail"].startswith("the limit is 2 requests per hour")


def test_a_new_hour_counts_from_the_start(api: Client, api_key: ApiKey) -> None:
    ApiKey.objects.filter(pk=api_key.pk).update(requests_per_hour=2)
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    RateWindow.objects.create(api_key=api_key, hour=hour - timedelta(hours=1), requests=1000)

    assert api.get("/api/validations").status_code == 200
    assert list(RateWindow.objects.values_list("requests", flat=True)) == [1]


def test_the_use_of_a_key_is_noted_but_not_every_time(api: Client, api_key: ApiKey) -> None:
    api.get("/api/validations")
    first = ApiKey.objects.get().last_used_at
    api.get("/api/validations")
    assert first is not None
    assert ApiKey.objects.get().last_used_at == first

    ApiKey.objects.update(last_used_at=first - timedelta(minutes=11))
    api.get("/api/validations")
    assert ApiKey.objects.get().last_used_at != first - timedelta(minutes=11)


def test_an_organisation_is_created_in_its_own_region_only(db: None) -> None:
    with pytest.raises(CommandError, match="this stack serves AU: create an organisation of US in its own stack"):
        call_command("create_organization", "--slug=demo", "--name=Demo", "--data-region=US")
    assert not Organization.objects.exists()


def test_a_key_belongs_to_one_organisation(organization: Organization, api_key: ApiKey) -> None:
    arguments = ("--slug=other", "--name=Other", "--data-region=AU", f"--api-key-hash={api_key.sha256}")

    with pytest.raises(CommandError, match="belongs to another organisation"):
        call_command("create_organization", *arguments)

    assert list(Organization.objects.values_list("slug", flat=True)) == ["demo"]


def test_a_limit_may_be_as_high_as_the_database_holds(db: None) -> None:
    call_command(
        *("create_organization", "--slug=demo", "--name=Demo", "--data-region=AU"),
        *("--api-key-hash", "0" * 64, "--api-key-prefix=01234567", "--requests-per-hour=2147483647"),
    )

    assert ApiKey.objects.get().requests_per_hour == 2147483647


def test_a_revoked_key_is_not_created_again(organization: Organization, api_key: ApiKey) -> None:
    ApiKey.objects.update(revoked_at=timezone.now())

    with pytest.raises(CommandError, match="this API key is revoked"):
        call_command(
            "create_organization", "--slug=demo", "--name=Demo", "--data-region=AU", f"--api-key-hash={api_key.sha256}"
        )


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--slug=Two words", "--slug"),
        ("--slug=" + "x" * 64, "--slug"),
        ("--name=" + "x" * 201, "--name"),
        ("--name=", "--name"),
        ("--requests-per-hour=-5", "must be a whole number"),
        ("--requests-per-hour=0", "must be a whole number"),
        ("--requests-per-hour=2147483648", "must be a whole number from 1 to 2147483647"),
    ],
)
def test_an_organisation_that_cannot_be_is_not_created(db: None, argument: str, said: str) -> None:
    arguments = {"--slug": "demo", "--name": "Demo", "--data-region": "AU"}
    name, _, value = argument.partition("=")

    with pytest.raises(CommandError, match=said):
        call_command("create_organization", *(f"{n}={v}" for n, v in (arguments | {name: value}).items()))

    assert not Organization.objects.exists()
