"""IAM: service accounts, their keys, custom roles, and (mounted here) Google's token endpoints and metadata server."""

import base64
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from localgcp import generic
from localgcp.clock import timestamp
from localgcp.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from localgcp.iam import accounts, keys, metadata, oauth
from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.iam.roles import Role, known_permissions, predefined
from localgcp.service import Call, Service
from localgcp.services import iamcredentials
from localgcp.store import Resource

if TYPE_CHECKING:
    from localgcp.region import Region

MAX_KEYS = 10  # "Quotas and limits" of IAM: user-managed keys of a service account
UNDELETE_DAYS = 30  # service accounts, serviceAccounts.undelete
ROLE_ID_RESERVED_DAYS = 37  # 7 days deleted and restorable, 30 more until the id is free (roles.delete)

_ACCOUNT_ID = re.compile(r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])")
_ROLE_ID = re.compile(r"[a-zA-Z0-9_.]{3,64}")
_PERMISSION = re.compile(r"[a-zA-Z0-9-]+(\.[a-zA-Z0-9]+){2,}")
_ACCOUNT_FIELDS = {"display_name": "displayName", "displayName": "displayName", "description": "description"}

service = Service("iam:v1")
for _path, _app in oauth.mounts().items():
    service.mount(_path, _app)
service.mount(metadata.PREFIX, metadata.metadata_app)

service.permissions |= {
    "projects.serviceAccounts.create": "iam.serviceAccounts.create",
    "projects.serviceAccounts.list": "iam.serviceAccounts.list",
    # Anybody who is somebody may read what a predefined role holds.
    "roles.get": None,
    "roles.list": None,
    "roles.queryGrantableRoles": None,
}
service.allow("iam.roles", "projects.roles", undelete="iam.roles.undelete")
# The handlers check: an account may be named by its unique id or below `projects/-`.
for _verb in ("get", "patch", "update", "delete", "undelete", "disable", "enable", "getIamPolicy", "setIamPolicy"):
    service.permissions[f"projects.serviceAccounts.{_verb}"] = None
for _verb in ("testIamPermissions", "signBlob", "signJwt"):
    service.permissions[f"projects.serviceAccounts.{_verb}"] = None
for _verb in ("create", "get", "list", "delete", "upload", "disable", "enable"):
    service.permissions[f"projects.serviceAccounts.keys.{_verb}"] = None

service.method("projects.serviceAccounts.signBlob")(lambda call: _renamed(iamcredentials.sign_blob, call))
service.method("projects.serviceAccounts.signJwt")(iamcredentials.sign_jwt)


@service.on_start
async def make_operator_credentials(region: "Region") -> None:
    await region.run_in_thread(_make_operator_credentials, region)


def operator_credentials_path(data_dir: Path) -> Path:
    return data_dir / "credentials" / "operator.json"


def _make_operator_credentials(region: "Region") -> None:
    """Write the operator's key file, once. A file that outlived its database is replaced."""
    path = operator_credentials_path(region.settings.data_dir)
    if path.exists():
        content = json.loads(path.read_text())
        known = region.tokens.keys.find(str(content.get("private_key_id")))
        if known is not None and content.get("token_uri") == f"{region.settings.api_url}/token":
            return
    region.tokens.keys.delete_all(OPERATOR_EMAIL)
    key, private_key = region.tokens.keys.create(OPERATOR_EMAIL)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(region.tokens.credentials_file(OPERATOR_EMAIL, key, private_key), indent=2) + "\n")
    partial.replace(path)


# Service accounts


@service.method("projects.serviceAccounts.create")
def create_account(call: Call) -> Resource:
    account_id = str(call.body.get("accountId") or "")
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise InvalidArgument(
            f"Invalid account ID '{account_id}': it must hold 6 to 30 lower-case letters, digits and dashes, begin with"
            " a letter and not end with a dash."
        )
    wanted = call.body.get("serviceAccount") or {}
    email = f"{account_id}@{call.project}{accounts.OWN_DOMAIN}"
    key = f"iam/projects/{call.project}/serviceAccounts/{email}"
    unique_id = _new_unique_id()
    body = {
        "name": f"projects/{call.project}/serviceAccounts/{email}",
        "projectId": call.project,
        "uniqueId": unique_id,
        "email": email,
        **{name: wanted[name] for name in ("displayName", "description") if wanted.get(name)},
        "etag": _new_etag(),
        "oauth2ClientId": unique_id,
    }
    with call.store.transaction() as tx:
        if call.store.exists(key):
            raise AlreadyExists(f"Service account {account_id} already exists within project projects/{call.project}.")
        created = call.store.create(key, body)
        tx.execute("INSERT INTO service_account_ids (unique_id, email) VALUES (?, ?)", (unique_id, email))
    return created


@service.method("projects.serviceAccounts.get")
def get_account(call: Call) -> Resource:
    return _account(call, "iam.serviceAccounts.get")


@service.method("projects.serviceAccounts.list")
def list_accounts(call: Call) -> dict[str, Any]:
    found = call.store.list(f"iam/projects/{call.project}", "serviceAccounts")
    return generic.page(call, found)


@service.method("projects.serviceAccounts.patch")
def patch_account(call: Call) -> Resource:
    wanted = call.body.get("serviceAccount") or {}
    mask = [field.strip() for field in str(call.body.get("updateMask") or "").split(",") if field.strip()]
    unknown = [field for field in mask if field not in _ACCOUNT_FIELDS]
    if not mask or unknown:
        raise InvalidArgument(
            f"updateMask must name displayName or description, got '{','.join(unknown or mask)}'.",
            location="updateMask",
        )
    return _update_account(call, wanted, {_ACCOUNT_FIELDS[field] for field in mask})


@service.method("projects.serviceAccounts.update")
def update_account(call: Call) -> Resource:
    return _update_account(call, call.body, {"displayName", "description"})


@service.method("projects.serviceAccounts.delete")
def delete_account(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccounts.delete")
    email, unique_id = account["email"], account["uniqueId"]
    with call.store.transaction() as tx:
        call.store.delete(account.key)
        tx.execute(
            "UPDATE service_account_ids SET deleted_body = ?, deleted_at = ? WHERE unique_id = ?",
            (json.dumps(account), call.region.clock.now().timestamp(), unique_id),
        )
        # Whoever takes the address afterwards is somebody else: grants, keys and tokens do not pass on.
        call.region.iam.rename_member(f"serviceAccount:{email}", _deleted_member(email, unique_id))
        call.region.tokens.keys.rename_owner(email, _deleted_member(email, unique_id))
        call.region.tokens.revoke_all(email)
    return {}


@service.method("projects.serviceAccounts.undelete")
def undelete_account(call: Call) -> dict[str, Any]:
    identifier = call.named.rpartition("/")[2]
    row = call.store.row(
        "SELECT * FROM service_account_ids WHERE (unique_id = ? OR email = ?) AND deleted_body IS NOT NULL"
        " ORDER BY deleted_at DESC",
        (identifier, identifier),
    )
    if row is None or row["deleted_at"] < (call.region.clock.now() - timedelta(days=UNDELETE_DAYS)).timestamp():
        raise NotFound("Unknown service account")
    account = json.loads(row["deleted_body"])
    email, unique_id = account["email"], account["uniqueId"]
    call.check("iam.serviceAccounts.undelete", f"cloudresourcemanager/projects/{account['projectId']}")
    with call.store.transaction() as tx:
        if accounts.exists(call.store, email):
            raise FailedPrecondition(f"Another service account has taken the address {email} since.")
        restored = call.store.create(f"iam/{account['name']}", account)
        tx.execute(
            "UPDATE service_account_ids SET deleted_body = NULL, deleted_at = NULL WHERE unique_id = ?", (unique_id,)
        )
        call.region.iam.rename_member(_deleted_member(email, unique_id), f"serviceAccount:{email}")
        call.region.tokens.keys.rename_owner(_deleted_member(email, unique_id), email)
    return {"restoredAccount": restored}


@service.method("projects.serviceAccounts.disable")
def disable_account(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccounts.disable")
    call.store.put(account.key, {**account, "disabled": True, "etag": _new_etag()})
    return {}


@service.method("projects.serviceAccounts.enable")
def enable_account(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccounts.enable")
    call.store.put(account.key, {k: v for k, v in account.items() if k != "disabled"} | {"etag": _new_etag()})
    return {}


@service.method("projects.serviceAccounts.getIamPolicy")
def get_account_policy(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccounts.getIamPolicy")
    return call.region.iam.get_policy(account.key, int(call.query.get("options.requestedPolicyVersion") or 0))


@service.method("projects.serviceAccounts.setIamPolicy")
def set_account_policy(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccounts.setIamPolicy")
    return call.region.iam.set_policy(account.key, call.body.get("policy") or {}, call.body.get("updateMask"))


@service.method("projects.serviceAccounts.testIamPermissions")
def test_account_permissions(call: Call) -> dict[str, Any]:
    account = _find(call)
    wanted = call.body.get("permissions") or []
    granted = call.region.iam.granted(call.principal, wanted, account.key) if account else []
    return {"permissions": granted} if granted else {}


# Keys


@service.method("projects.serviceAccounts.keys.create")
def create_key(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccountKeys.create")
    _check_key_policy(call, account, "iam.disableServiceAccountKeyCreation", "Key creation")
    _check_key_count(call, account)
    algorithm = call.body.get("keyAlgorithm") or "KEY_ALG_UNSPECIFIED"
    bits = 1024 if algorithm == "KEY_ALG_RSA_1024" else 2048
    if bits == 1024:
        raise InvalidArgument("KEY_ALG_RSA_1024 is not offered any more: use KEY_ALG_RSA_2048.")
    key, private_key = call.region.tokens.keys.create(account["email"], bits=bits)
    file_type = call.body.get("privateKeyType") or "TYPE_UNSPECIFIED"
    if file_type == "TYPE_PKCS12_FILE":
        content = _pkcs12(key, private_key)
    else:
        file_type = "TYPE_GOOGLE_CREDENTIALS_FILE"
        credentials = call.region.tokens.credentials_file(account["email"], key, private_key)
        content = (json.dumps(credentials, indent=2) + "\n").encode()
    return _key_body(account, key) | {
        "privateKeyType": file_type,
        "privateKeyData": base64.b64encode(content).decode(),
    }


@service.method("projects.serviceAccounts.keys.upload")
def upload_key(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccountKeys.create")
    _check_key_policy(call, account, "iam.disableServiceAccountKeyUpload", "Key upload")
    _check_key_count(call, account)
    try:
        certificate = base64.b64decode(call.body.get("publicKeyData") or "", validate=True).decode("ascii")
        key = call.region.tokens.keys.upload(account["email"], certificate)
    except ValueError as error:
        raise InvalidArgument(f"publicKeyData must be the base64 of a PEM X.509 certificate: {error}.") from None
    return _key_body(account, key)


@service.method("projects.serviceAccounts.keys.list")
def list_keys(call: Call) -> dict[str, Any]:
    account = _account(call, "iam.serviceAccountKeys.list")
    wanted = call.query.get("keyTypes") or []
    wanted = [wanted] if isinstance(wanted, str) else wanted
    call.region.tokens.keys.own(account["email"])  # Google made one with the account
    found = call.region.tokens.keys.list(account["email"])
    return {"keys": [_key_body(account, key) for key in found if not wanted or key.key_type in wanted]}


@service.method("projects.serviceAccounts.keys.get")
def get_key(call: Call) -> dict[str, Any]:
    account, key = _key(call, "iam.serviceAccountKeys.get")
    body = _key_body(account, key)
    form = call.query.get("publicKeyType") or "TYPE_NONE"
    if form == "TYPE_X509_PEM_FILE":
        body["publicKeyData"] = base64.b64encode(key.certificate.encode()).decode()
    elif form == "TYPE_RAW_PUBLIC_KEY":
        body["publicKeyData"] = base64.b64encode(key.public_key_pem.encode()).decode()
    return body


@service.method("projects.serviceAccounts.keys.delete")
def delete_key(call: Call) -> dict[str, Any]:
    _, key = _key(call, "iam.serviceAccountKeys.delete")
    if key.key_type == keys.SYSTEM_MANAGED:
        raise FailedPrecondition("A system-managed key cannot be deleted.")
    call.region.tokens.keys.delete(key.key_id)
    return {}


@service.method("projects.serviceAccounts.keys.disable")
def disable_key(call: Call) -> dict[str, Any]:
    _, key = _key(call, "iam.serviceAccountKeys.disable")
    call.region.tokens.keys.set_disabled(key.key_id, True)
    return {}


@service.method("projects.serviceAccounts.keys.enable")
def enable_key(call: Call) -> dict[str, Any]:
    _, key = _key(call, "iam.serviceAccountKeys.enable")
    call.region.tokens.keys.set_disabled(key.key_id, False)
    return {}


# Roles


@service.method("roles.get")
def get_predefined_role(call: Call) -> dict[str, Any]:
    role = predefined().get(call.named)
    if role is None:
        raise NotFound(f"The role named {call.named} was not found.")
    return _predefined_body(role, with_permissions=True)


@service.method("roles.list")
def list_predefined_roles(call: Call) -> dict[str, Any]:
    if parent := str(call.query.get("parent") or ""):
        project = call.region.with_project_ids(parent).removeprefix("projects/")
        call.check("iam.roles.list", f"cloudresourcemanager/projects/{project}")
        return generic.page(call, _custom_roles(call, f"iam/projects/{project}"))
    is_full = call.query.get("view") == "FULL"
    bodies = [_predefined_body(role, with_permissions=is_full) for role in predefined().values()]
    return generic.page(call, [Resource(f"iam/{body['name']}", body) for body in bodies])


@service.method("roles.queryGrantableRoles")
def query_grantable_roles(call: Call) -> dict[str, Any]:
    bodies = [_predefined_body(role, with_permissions=False) for role in predefined().values()]
    return {"roles": [{name: body[name] for name in body if name != "etag"} for body in bodies]}


@service.method("projects.roles.create")
def create_role(call: Call) -> dict[str, Any]:
    role_id = str(call.body.get("roleId") or "")
    if not _ROLE_ID.fullmatch(role_id):
        raise InvalidArgument(f"The role_id '{role_id}' must hold 3 to 64 letters, digits, underscores and periods.")
    role = {name: value for name, value in (call.body.get("role") or {}).items() if value not in (None, [], "")}
    _check_role(role)
    name = f"projects/{call.project}/roles/{role_id}"
    with call.store.transaction():
        existing = call.store.find(f"iam/{name}")
        if existing is not None and not _is_free_again(call, existing):
            raise AlreadyExists(f"A role named {role_id} in projects/{call.project} already exists.")
        return _role_body(call.store.put(f"iam/{name}", {**role, "name": name, "etag": _new_etag()}))


@service.method("projects.roles.get")
def get_role(call: Call) -> dict[str, Any]:
    return _role_body(_role(call))


@service.method("projects.roles.list")
def list_roles(call: Call) -> dict[str, Any]:
    return generic.page(call, _custom_roles(call, f"iam/projects/{call.project}"))


@service.method("projects.roles.patch")
def patch_role(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        role = _role(call)
        if role.get("deleted"):
            raise FailedPrecondition(f"The role {role['name']} is deleted: undelete it first.")
        _check_etag(role, call.body.get("etag"))
        fields = ("title", "description", "includedPermissions", "stage")
        mask = [field.strip() for field in str(call.query.get("updateMask") or "").split(",") if field.strip()]
        mask = ["includedPermissions" if field == "included_permissions" else field for field in mask]
        changed: dict[str, Any] = dict(role)
        for field in mask or [field for field in fields if field in call.body]:
            if field not in fields:
                raise InvalidArgument(f"updateMask names no field of a role that can change: {field}.")
            changed[field] = call.body.get(field)
        changed = {name: value for name, value in changed.items() if value not in (None, [], "")}
        _check_role(changed)
        return _role_body(call.store.put(role.key, {**changed, "etag": _new_etag()}))


@service.method("projects.roles.delete")
def delete_role(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        role = _role(call)
        if role.get("deleted"):
            raise FailedPrecondition(f"The role {role['name']} is already deleted.")
        _check_etag(role, call.query.get("etag"))
        now = timestamp(call.region.clock.now())
        changed = {**role, "deleted": True, "etag": _new_etag(), "_localgcp": {"deleteTime": now}}
        return _role_body(call.store.put(role.key, changed))


@service.method("projects.roles.undelete")
def undelete_role(call: Call) -> dict[str, Any]:
    with call.store.transaction():
        role = _role(call)
        if not role.get("deleted"):
            raise FailedPrecondition(f"The role {role['name']} is not deleted.")
        _check_etag(role, call.body.get("etag"))
        kept = {name: value for name, value in role.items() if name not in ("deleted", "_localgcp")}
        return _role_body(call.store.put(role.key, {**kept, "etag": _new_etag()}))


def _account(call: Call, permission: str) -> Resource:
    """The account that the path names, once the caller has the permission on it."""
    account = _find(call)
    if account is None:
        # Whether an account exists is told only to those who may know.
        project = call.project if call.project not in ("", "-") else ""
        call.check(permission, f"iam/projects/{project}/serviceAccounts/-" if project else "iam/unknown")
        raise NotFound("Unknown service account")
    call.check(permission, account.key)
    return account


def _find(call: Call) -> Resource | None:
    match = re.match(r"projects/([^/]+)/serviceAccounts/([^/]+)", call.named)
    if match is None:
        return None
    project, identifier = match.groups()
    account = (
        accounts.find(call.store, identifier.lower())
        if "@" in identifier
        else accounts.find_by_unique_id(call.store, identifier)
    )
    return account if account is not None and project in ("-", account["projectId"]) else None


def _update_account(call: Call, wanted: dict[str, Any], fields: set[str]) -> Resource:
    with call.store.transaction():
        account = _account(call, "iam.serviceAccounts.update")
        _check_etag(account, wanted.get("etag"))
        changed: dict[str, Any] = {name: value for name, value in account.items() if name not in fields}
        changed |= {name: wanted[name] for name in sorted(fields) if wanted.get(name)}
        return call.store.put(account.key, {**changed, "etag": _new_etag()})


def _key(call: Call, permission: str) -> tuple[Resource, keys.SigningKey]:
    account = _account(call, permission)
    key = call.region.tokens.keys.find(call.named.rpartition("/")[2])
    if key is None or key.owner != account["email"]:
        raise NotFound("Service account key does not exist")
    return account, key


def _key_body(account: Resource, key: keys.SigningKey) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": f"{account['name']}/keys/{key.key_id}",
        "validAfterTime": _second(key.valid_after),
        "validBeforeTime": _second(key.valid_before),
        "keyAlgorithm": key.algorithm,
        "keyOrigin": key.origin,
        "keyType": key.key_type,
    }
    if key.disabled:
        body["disabled"] = True
    return body


def _check_key_policy(call: Call, account: Resource, constraint: str, what: str) -> None:
    policy = call.store.find(f"orgpolicy/projects/{account['projectId']}/policies/{constraint}")
    rules = policy.get("spec", {}).get("rules", []) if policy else []
    if any(rule.get("enforce") for rule in rules):
        raise FailedPrecondition(f"{what} is not allowed on this service account (constraint {constraint}).")


def _check_key_count(call: Call, account: Resource) -> None:
    managed = [key for key in call.region.tokens.keys.list(account["email"]) if key.key_type == keys.USER_MANAGED]
    if len(managed) >= MAX_KEYS:
        raise ResourceExhausted(f"Maximum number of keys on account reached: {MAX_KEYS}.")


def _pkcs12(key: keys.SigningKey, private_key: str) -> bytes:
    loaded: Any = serialization.load_pem_private_key(private_key.encode(), password=None)
    certificate = x509.load_pem_x509_certificate(key.certificate.encode())
    # The password is Google's, the same for every such file.
    encryption = serialization.BestAvailableEncryption(b"notasecret")
    return pkcs12.serialize_key_and_certificates(b"privatekey", loaded, certificate, None, encryption)


def _role(call: Call) -> Resource:
    role = call.store.find(call.key)
    if role is None:
        raise NotFound(f"The role named {call.named} was not found.")
    return role


def _custom_roles(call: Call, parent: str) -> list[Resource]:
    with_deleted, is_full = bool(call.query.get("showDeleted")), call.query.get("view") == "FULL"
    found = [role for role in call.store.list(parent, "roles") if with_deleted or not role.get("deleted")]
    hidden = () if is_full else ("includedPermissions",)
    return [
        Resource(role.key, {name: value for name, value in _role_body(role).items() if name not in hidden})
        for role in found
    ]


def _role_body(role: Resource) -> dict[str, Any]:
    return {name: value for name, value in role.items() if name != "_localgcp"}


def _check_role(role: dict[str, Any]) -> None:
    for permission in role.get("includedPermissions", []):
        if not _PERMISSION.fullmatch(permission):
            raise InvalidArgument(f"Permission {permission} is not valid.")
    if len(str(role.get("title", ""))) > 100:
        raise InvalidArgument("The title of a role holds at most 100 characters.")


def _is_free_again(call: Call, role: Resource) -> bool:
    deleted = (role.get("_localgcp") or {}).get("deleteTime")
    if not role.get("deleted") or deleted is None:
        return False
    return datetime.fromisoformat(deleted) < call.region.clock.now() - timedelta(days=ROLE_ID_RESERVED_DAYS)


def _predefined_body(role: Role, *, with_permissions: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": role.name,
        "title": role.title,
        "description": role.description,
        "stage": "GA",
        "etag": "AA==",
    }
    if with_permissions:
        body["includedPermissions"] = (
            sorted(permission for permission in known_permissions() if role.includes(permission))
            if role.is_basic
            else list(role.permissions)
        )
    return {name: value for name, value in body.items() if value}


def _check_etag(current: Resource, given: Any) -> None:
    if given and given != current["etag"]:
        raise Aborted(
            f"There were concurrent changes: the etag '{given}' is not the current one, '{current['etag']}'."
            " Read the resource again."
        )


def _renamed(sign: Any, call: Call) -> dict[str, Any]:
    """The older signBlob of this API calls its input and output by other names."""
    call.body["payload"] = call.body.pop("bytesToSign", "")
    answer = sign(call)
    return {"keyId": answer["keyId"], "signature": answer["signedBlob"]}


def _deleted_member(email: str, unique_id: str) -> str:
    return f"deleted:serviceAccount:{email}?uid={unique_id}"


def _second(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _new_unique_id() -> str:
    return "1" + "".join(secrets.choice("0123456789") for _ in range(20))


def _new_etag() -> str:
    return base64.b64encode(secrets.token_bytes(8)).decode()
