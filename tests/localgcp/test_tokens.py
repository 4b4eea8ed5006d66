"""Tokens, seen by google-auth: keys of service accounts, the metadata server, ID tokens and who checks them."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import google.auth.transport.requests
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions, impersonated_credentials
from google.cloud import secretmanager_v1
from google.oauth2 import id_token, service_account
from googleapiclient.errors import HttpError

from localgcp.iam.principal import OPERATOR, OPERATOR_EMAIL
from localgcp.iam.tokens import Tokens
from localgcp.store import Store
from tests.localgcp.fixtures import SCOPES, Account, Region

LOCATION = "australia-southeast1"
AUDIENCE = "https://worker.example.test"


@pytest.fixture
def account(region: Region, project: str) -> Account:
    return region.account(project, "web-app", "roles/secretmanager.viewer")


@pytest.fixture
def transport() -> google.auth.transport.requests.Request:
    return google.auth.transport.requests.Request()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"aud": "https://secretmanager.googleapis.com/", "iat": now, "exp": now + 600} | changes


def status_of(region: Region, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{region.url}/secretmanager/v1/projects/somebody/secrets", headers=headers).status_code


def test_a_service_account_key_is_exchanged_for_an_access_token(
    region: Region, account: Account, transport: Any, project: str
) -> None:
    account.credentials.refresh(transport)

    token = str(account.credentials.token)
    assert len(token) <= 100
    answer = httpx.get(f"{region.url}/tokeninfo", params={"access_token": token}).json()
    assert (answer["email"], answer["email_verified"]) == (account.email, "true")


def test_a_client_that_signs_its_own_tokens_is_known_by_its_key(region: Region, account: Account, project: str) -> None:
    credentials = account.credentials.with_always_use_jwt_access(True)
    client = region.client(secretmanager_v1.SecretManagerServiceClient, credentials)

    assert list(client.list_secrets(parent=f"projects/{project}")) == []


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("expired", {"exp": 1_700_000_000, "iat": 1_699_999_000}),
        ("for somebody else's API", {"aud": "https://api.example.test/"}),
        ("living for two hours", {"exp": int(time.time()) + 7200}),
        ("speaking for another account", {"sub": "other@elsewhere.iam.gserviceaccount.com"}),
    ],
)
def test_a_token_that_is_wrong_is_nobodys(region: Region, account: Account, what: str, changes: dict[str, Any]) -> None:
    file = account.key_file
    payload = claims(iss=account.email, sub=account.email) | changes
    token = jwt.encode(payload, file["private_key"], "RS256", headers={"kid": file["private_key_id"]})

    assert status_of(region, token) == 401, what


def test_an_account_cannot_speak_for_another_with_its_own_key(region: Region, account: Account, project: str) -> None:
    other = region.account(project, "worker-app")
    file = account.key_file
    payload = claims(iss=other.email, sub=other.email)

    token = jwt.encode(payload, file["private_key"], "RS256", headers={"kid": file["private_key_id"]})

    assert status_of(region, token) == 401


def test_a_token_signed_by_an_unknown_key_or_by_none_is_refused(region: Region, account: Account) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    payload = claims(iss=account.email, sub=account.email)
    headers = {"kid": account.key_file["private_key_id"]}

    forged = jwt.encode(payload, stranger, "RS256", headers=headers)
    unsigned = jwt.encode(payload, "", "none", headers=headers)

    assert [status_of(region, forged), status_of(region, unsigned)] == [401, 401]


def test_a_deleted_key_opens_nothing(region: Region, account: Account, transport: Any) -> None:
    keys = region.api("iam", "v1").projects().serviceAccounts().keys()
    name = f"projects/-/serviceAccounts/{account.email}/keys/{account.key_file['private_key_id']}"
    keys.delete(name=name).execute()

    with pytest.raises(exceptions.RefreshError, match="signature is not of a known key"):
        account.credentials.refresh(transport)


def test_an_access_token_opens_nothing_after_its_lifetime(region: Region) -> None:
    tokens = region.core.tokens

    good, ended = tokens.access_token(OPERATOR_EMAIL, 60), tokens.access_token(OPERATOR_EMAIL, 0)

    assert [status_of(region, good), status_of(region, ended)] == [200, 401]


def test_an_access_token_outlives_the_process_that_gave_it(tmp_path: Path) -> None:
    token = Tokens(Store(tmp_path / "region.sqlite3"), "http://127.0.0.1:9180").access_token(OPERATOR_EMAIL)

    tokens = Tokens(Store(tmp_path / "region.sqlite3"), "http://127.0.0.1:9180")

    assert tokens.principal(token) == OPERATOR


def test_an_access_token_is_not_kept_in_readable_form(region: Region, account: Account) -> None:
    token = region.core.tokens.access_token(account.email)

    database = (region.core.settings.data_dir / "region.sqlite3").read_bytes()
    log = (region.core.settings.data_dir / "region.sqlite3-wal").read_bytes()

    assert token.encode() not in database + log


def test_a_refresh_token_is_refused_in_words(region: Region) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "y"}

    answer = httpx.post(f"{region.url}/token", data=form)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert "localgcp env" in answer.json()["error_description"]


def test_an_id_token_of_a_key_is_verified_by_googles_library(region: Region, account: Account, transport: Any) -> None:
    credentials = service_account.IDTokenCredentials.from_service_account_info(
        account.key_file, target_audience=AUDIENCE
    )
    credentials.refresh(transport)

    verified = id_token.verify_token(
        credentials.token, transport, audience=AUDIENCE, certs_url=f"{region.url}/oauth2/v1/certs"
    )

    expected = {"aud": AUDIENCE, "email": account.email, "email_verified": True, "iss": "https://accounts.google.com"}
    assert {name: verified[name] for name in expected} == expected
    account_id = (
        region.api("iam", "v1")
        .projects()
        .serviceAccounts()
        .get(name=f"projects/-/serviceAccounts/{account.email}")
        .execute()["uniqueId"]
    )
    assert verified["sub"] == verified["azp"] == account_id


def test_the_published_keys_verify_what_the_region_signs(region: Region, account: Account) -> None:
    token = region.core.tokens.id_token(account.email, AUDIENCE)
    document = httpx.get(f"{region.url}/.well-known/openid-configuration").json()

    with httpx.Client() as client:
        keys = jwt.PyJWKSet.from_dict(client.get(document["jwks_uri"]).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    read = jwt.decode(token, key.key, ["RS256"], audience=AUDIENCE, issuer=document["issuer"])

    assert read["email"] == account.email


def test_an_id_token_proves_nothing_to_another_service(region: Region, account: Account) -> None:
    token = region.core.tokens.id_token(account.email, AUDIENCE)
    tokens = region.core.tokens

    assert tokens.principal_of_id_token(token, AUDIENCE.__eq__).email == account.email
    with pytest.raises(Exception, match="invalid authentication credentials"):
        tokens.principal_of_id_token(token, "https://other.example.test".__eq__)


def test_an_account_acts_for_another_only_with_a_grant(
    region: Region, account: Account, project: str, transport: Any
) -> None:
    target = region.account(project, "target-app")
    name = f"projects/-/serviceAccounts/{target.email}"
    credentials = impersonated_credentials.Credentials(
        source_credentials=region.credentials(account.email),
        target_principal=target.email,
        target_scopes=SCOPES,
        iam_endpoint_override=f"{region.url}/iamcredentials/v1/{name}:generateAccessToken",
    )
    with pytest.raises(exceptions.RefreshError, match=r"iam\.serviceAccounts\.getAccessToken"):
        credentials.refresh(transport)

    binding = {"role": "roles/iam.serviceAccountTokenCreator", "members": [account.member]}
    region.api("iam", "v1").projects().serviceAccounts().setIamPolicy(
        resource=name, body={"policy": {"bindings": [binding]}}
    ).execute()
    credentials.refresh(transport)

    assert region.core.tokens.principal(credentials.token).email == target.email


def test_a_blob_signed_by_google_verifies_with_the_accounts_certificate(region: Region, account: Account) -> None:
    credentials = region.api("iamcredentials", "v1").projects().serviceAccounts()
    body = {"payload": base64.b64encode(b"a string to sign").decode()}

    answer = credentials.signBlob(name=f"projects/-/serviceAccounts/{account.email}", body=body).execute()

    signature = base64.b64decode(answer["signedBlob"])
    assert region.core.tokens.verify_signature(account.email, b"a string to sign", signature)
    assert not region.core.tokens.verify_signature(account.email, b"another string", signature)
    certificates = httpx.get(f"{region.url}/robot/v1/metadata/x509/{account.email}").json()
    assert answer["keyId"] in certificates


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("generateAccessToken", {"scope": SCOPES, "lifetime": "3601s"}, "lifetime must be 1s to 3600s, got 3601s"),
        ("signJwt", {"payload": '{"exp": 1}'}, "The claim exp must be a whole number of seconds, not in the past"),
        ("signJwt", {"payload": '{"exp": 99999999999}'}, "no more than 12 hours in the future"),
        ("signJwt", {"payload": "[]"}, "payload must be a JSON object"),
    ],
)
def test_what_would_live_too_long_is_not_signed(
    region: Region, account: Account, method: str, body: dict[str, Any], message: str
) -> None:
    credentials = region.api("iamcredentials", "v1").projects().serviceAccounts()

    with pytest.raises(HttpError, match=message):
        getattr(credentials, method)(name=f"projects/-/serviceAccounts/{account.email}", body=body).execute()


# The metadata server

WORKLOAD = """
import json, sys
import google.auth, google.auth.transport.requests
from google.oauth2 import id_token
credentials, project = google.auth.default()
request = google.auth.transport.requests.Request()
credentials.refresh(request)
token = id_token.fetch_id_token(request, sys.argv[1])
print(json.dumps([type(credentials).__module__, project, credentials.service_account_email, credentials.token, token]))
"""


def environment(host: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "CLOUDSDK_CONFIG": "/nonexistent"}


def test_a_workload_finds_its_own_identity_through_googles_library(
    region: Region, account: Account, project: str, transport: Any
) -> None:
    host = region.core.metadata.register(account.email, project, LOCATION, "0123456789abcdef")

    answer = subprocess.run(
        [sys.executable, "-c", WORKLOAD, AUDIENCE],
        env=environment(host),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    module, found, email, access, identity = json.loads(answer.stdout)
    assert (module, found, email) == ("google.auth.compute_engine.credentials", project, account.email)
    assert region.core.tokens.principal(access).email == account.email
    certificates = f"{region.url}/oauth2/v1/certs"
    assert id_token.verify_token(identity, transport, AUDIENCE, certificates)["email"] == account.email


def test_the_metadata_server_answers_in_googles_form(region: Region, account: Account, project: str) -> None:
    host = region.core.metadata.register(account.email, project, LOCATION, "0123456789abcdef")
    number = region.core.project_number(project)
    with httpx.Client(base_url=f"http://{host}/computeMetadata/v1", headers={"Metadata-Flavor": "Google"}) as client:
        paths = ["project/project-id", "project/numeric-project-id", "instance/region", "instance/id"]
        texts = [client.get(f"/{path}").text for path in paths]
        accounts = client.get("/instance/service-accounts/").text.splitlines()
        default = client.get("/instance/service-accounts/default/", params={"recursive": "true"})

    assert texts == [project, number, f"projects/{number}/regions/{LOCATION}", "0123456789abcdef"]
    assert accounts == ["default/", f"{account.email}/"]
    assert default.headers["metadata-flavor"] == "Google"
    assert (default.json()["email"], default.json()["aliases"]) == (account.email, ["default"])


def test_the_metadata_server_refuses_a_request_without_its_header(
    region: Region, account: Account, project: str
) -> None:
    host = region.core.metadata.register(account.email, project, LOCATION, "1")
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"

    forwarded = httpx.get(url, headers={"Metadata-Flavor": "Google", "X-Forwarded-For": "203.0.113.9"})

    assert (httpx.get(url).status_code, forwarded.status_code) == (403, 403)


def test_a_workload_that_has_ended_has_no_identity(region: Region, account: Account, project: str) -> None:
    host = region.core.metadata.register(account.email, project, LOCATION, "1")
    region.core.metadata.unregister(host)

    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"

    assert httpx.get(url, headers={"Metadata-Flavor": "Google"}).status_code == 404


def test_a_disabled_account_gets_no_token_and_keeps_none(region: Region, account: Account, project: str) -> None:
    host = region.core.metadata.register(account.email, project, LOCATION, "1")
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    token = httpx.get(url, headers={"Metadata-Flavor": "Google"}).json()["access_token"]

    accounts = region.api("iam", "v1").projects().serviceAccounts()
    accounts.disable(name=f"projects/{project}/serviceAccounts/{account.email}", body={}).execute()

    assert status_of(region, token) == 401
    assert httpx.get(url, headers={"Metadata-Flavor": "Google"}).status_code == 404


def test_the_operators_key_file_is_for_the_operator_only(region: Region) -> None:
    path = region.core.settings.data_dir / "credentials" / "operator.json"

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["token_uri"] == f"{region.url}/token"
