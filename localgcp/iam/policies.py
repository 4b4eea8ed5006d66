"""IAM policies: kept as their owners set them, checked as Google checks them, and decided quickly.

A member has a permission on a resource when a binding of the resource's policy, of an ancestor's or of its project's
grants a role with that permission, and the binding's condition holds.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from localgcp.clock import Clock
from localgcp.errors import Aborted, ApiError, InvalidArgument, PermissionDenied, PreconditionFailed, Unauthenticated
from localgcp.iam import accounts
from localgcp.iam.conditions import InvalidCondition, compile_condition, holds
from localgcp.iam.names import Names
from localgcp.iam.principal import Principal
from localgcp.iam.roles import Roles
from localgcp.store import Store

#: The etag of a policy that nobody has set.
EMPTY_ETAG = "ACAB"

_MAX_PRINCIPALS = 1500  # "Quotas and limits" of IAM: principals in one policy
_WITH_CONDITION = "_withcond_"
_BASIC_ROLES = frozenset({"roles/owner", "roles/editor", "roles/viewer"})
_EMAIL = re.compile(r"[^@\s:?]+@[^@\s:?]+\.[^@\s:?]+")
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_WITH_EMAIL = frozenset({"user", "serviceAccount", "group"})
_CONVENIENCE = {"projectOwner": "roles/owner", "projectEditor": "roles/editor", "projectViewer": "roles/viewer"}


@dataclass(frozen=True, kw_only=True)
class _Binding:
    role: str
    members: frozenset[str]
    #: Projects whose owners, editors or viewers are members: (role, project).
    of_projects: tuple[tuple[str, str], ...]
    expression: str | None


class Iam:
    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or Clock()
        store.define(accounts.TABLE)
        self._compiled: dict[str, tuple[str, tuple[_Binding, ...]]] = {}
        self.names = Names(store)
        self.roles = Roles(store)

    # Decisions

    def allows(self, principal: Principal, permission: str, key: str, *, public: bool = True) -> bool:
        """Whether the policies of the resource, its ancestors and its project grant the permission.

        What they grant to everybody counts only when it may be `public`.
        """
        if principal.is_operator:
            return True
        lineage = self.names.lineage(key)
        return any(self._policy_allows(principal, permission, policy_key, key, public) for policy_key in lineage)

    def check(self, principal: Principal, permission: str, key: str) -> None:
        """Raises PermissionDenied in the words of the resource's API, or Unauthenticated for nobody in particular."""
        if not self.allows(principal, permission, key):
            raise denied(principal, permission, key)

    def granted(self, principal: Principal, permissions: Iterable[str], key: str) -> list[str]:
        """Those of `permissions` that the caller has, in the order they were asked for."""
        return [permission for permission in permissions if self.allows(principal, permission, key)]

    def is_member(self, principal: Principal, member: str) -> bool:
        """Whether a policy that names `member` means this principal."""
        return self._is_member(principal, _compile({"role": "", "members": [member]}))

    def _policy_allows(self, principal: Principal, permission: str, policy_key: str, key: str, public: bool) -> bool:
        for binding in self._bindings(policy_key):
            if not self._is_member(principal, binding, public):
                continue
            role = self.roles.find(binding.role)
            if role is None or not role.includes(permission):
                continue
            if binding.expression is None or holds(
                binding.expression, self.names.attributes(key), self._clock.now().astimezone(UTC)
            ):
                return True
        return False

    def _is_member(self, principal: Principal, binding: _Binding, public: bool = True) -> bool:
        members = binding.members
        if public and "allUsers" in members:
            return True
        if principal.email is None:
            return False
        if principal.member in members or (public and "allAuthenticatedUsers" in members):
            return True
        if f"domain:{principal.email.partition('@')[2]}" in members:
            return True
        return any(self._holds_role(principal, role, project) for role, project in binding.of_projects)

    def _holds_role(self, principal: Principal, role: str, project: str) -> bool:
        return any(
            binding.role == role and principal.member in binding.members
            for binding in self._bindings(f"cloudresourcemanager/projects/{project}")
        )

    def _bindings(self, key: str) -> tuple[_Binding, ...]:
        # The row is read every time and only its parsing is remembered: a policy that goes away with its resource,
        # or is restored with a rolled back transaction, cannot leave a decision behind.
        row = self._store.row("SELECT policy FROM policies WHERE key = ?", (key,))
        if row is None:
            return ()
        text: str = row["policy"]
        known = self._compiled.get(key)
        if known is not None and known[0] == text:
            return known[1]
        if len(self._compiled) > 10_000:
            self._compiled.clear()
        bindings = tuple(_compile(binding) for binding in self._store.policy(key).get("bindings", ()))
        self._compiled[key] = (text, bindings)
        return bindings

    # Policies

    def get_policy(self, key: str, requested_version: int = 3) -> dict[str, Any]:
        """The policy as getIamPolicy answers it: always with an etag, and with conditions for version 3 only.

        A reader that does not ask for version 3 sees a conditional role under a name that cannot be granted, so that
        it cannot drop the condition by writing back what it read.
        """
        policy = self._store.policy(key)
        policy.setdefault("etag", EMPTY_ETAG)
        policy.setdefault("version", 1)
        if not policy.get("bindings"):
            policy.pop("bindings", None)
            return policy
        if requested_version < 3 and any("condition" in binding for binding in policy["bindings"]):
            policy["bindings"] = [_without_condition(binding) for binding in policy["bindings"]]
            policy["version"] = 1
        return policy

    def set_policy(self, key: str, policy: Mapping[str, Any], update_mask: str | None = None) -> dict[str, Any]:
        """Replace the policy, whole or by mask, and answer it as it is now.

        Raises:
            Aborted: somebody else has changed it since `etag` was read (Cloud Storage: PreconditionFailed).
            InvalidArgument: a role, member or condition cannot be granted.
        """
        fields = _masked_fields(update_mask)
        bindings = self._checked_bindings(key, policy)
        version = _checked_version(policy, bindings)
        with self._store.transaction():
            current = self.get_policy(key, requested_version=3)
            etag = policy.get("etag")
            if etag and etag != current["etag"]:
                raise self._conflict(key, str(etag), str(current["etag"]))
            updated = {name: value for name, value in current.items() if name not in ("etag", "kind", "resourceId")}
            if "bindings" in fields:
                updated["bindings"] = bindings
                updated["version"] = version
            if "auditConfigs" in fields:
                updated["auditConfigs"] = _checked_audit_configs(policy.get("auditConfigs") or [])
            updated = {name: value for name, value in updated.items() if value != []}
            updated["etag"] = _new_etag()
            self._store.set_policy(key, updated)
        return self.get_policy(key, requested_version=3)

    def add_binding(self, key: str, role: str, member: str) -> None:
        """Grant a role, beside what is granted already; nothing happens when it is."""
        with self._store.transaction():
            policy = self.get_policy(key, requested_version=3)
            for binding in policy.setdefault("bindings", []):
                if binding["role"] == role and "condition" not in binding:
                    if member in binding["members"]:
                        return
                    binding["members"].append(member)
                    break
            else:
                policy["bindings"].append({"role": role, "members": [member]})
            self.set_policy(key, policy)

    def rename_member(self, old: str, new: str) -> None:
        """Replace a member in every policy: an account that is deleted stays in policies under another name.

        Whoever takes the address afterwards is somebody else, and has none of these grants.
        """
        with self._store.transaction() as tx:
            rows = tx.execute("SELECT key FROM policies WHERE instr(policy, ?) > 0", (f'"{old}"',)).fetchall()
            for row in rows:
                policy = self._store.policy(row["key"])
                for binding in policy.get("bindings", []):
                    binding["members"] = [new if member == old else member for member in binding["members"]]
                policy["etag"] = _new_etag()
                self._store.set_policy(row["key"], policy)

    def _conflict(self, key: str, sent: str, current: str) -> ApiError:
        if key.startswith("storage/"):
            return PreconditionFailed("At least one of the pre-conditions you specified did not hold.")
        return Aborted(
            "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff. "
            f"The request's ETag '{sent}' did not match the current policy's ETag '{current}'."
        )

    def _checked_bindings(self, key: str, policy: Mapping[str, Any]) -> list[dict[str, Any]]:
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for binding in policy.get("bindings") or []:
            role = binding.get("role", "")
            members = binding.get("members") or []
            condition = binding.get("condition")
            self._check_role(role)
            for member in members:
                self._check_member(key, member)
            if condition:
                _check_condition(role, members, condition)
            if not members:
                continue
            entry = merged.setdefault((role, repr(sorted((condition or {}).items()))), {"role": role, "members": []})
            entry["members"] = sorted({*entry["members"], *(_canonical(member) for member in members)})
            if condition:
                entry["condition"] = dict(condition)
        bindings = [merged[key] for key in sorted(merged)]
        if sum(len(binding["members"]) for binding in bindings) > _MAX_PRINCIPALS:
            raise InvalidArgument(f"The policy has more principals than the maximum of {_MAX_PRINCIPALS}.")
        return bindings

    def _check_role(self, role: str) -> None:
        if _WITH_CONDITION in role:
            raise InvalidArgument(
                f"Role {role} stands for a conditional binding: read the policy with requestedPolicyVersion 3."
            )
        if re.fullmatch(r"(roles|projects/[^/]+/roles|organizations/[^/]+/roles)/[A-Za-z0-9_.]+", role) is None:
            raise InvalidArgument(f"Role name must be in the format roles/{{role}}, got '{role}'.")
        if not self.roles.exists(role):
            if role.startswith("roles/"):
                raise InvalidArgument(f"Role {role} is not supported for this resource.")
            raise InvalidArgument(f"Role ({role}) does not exist in the resource's hierarchy.")

    def _check_member(self, key: str, member: str) -> None:
        kind, _, address = member.partition(":")
        if member in ("allUsers", "allAuthenticatedUsers"):
            if key.startswith("cloudresourcemanager/"):
                raise InvalidArgument(
                    "Members of type allUsers and allAuthenticatedUsers cannot be added to this resource."
                )
            return
        if kind in _CONVENIENCE and address:
            return
        if kind == "deleted" and "?uid=" in address:
            return
        if kind in ("principal", "principalSet") and address.startswith("//"):
            return
        if kind == "domain" and _DOMAIN.fullmatch(address):
            return
        if kind not in _WITH_EMAIL or _EMAIL.fullmatch(address) is None:
            raise InvalidArgument(f"Invalid member '{member}': the form is type:identifier, as user:a@example.com.")
        if address.endswith("gserviceaccount.com"):
            if kind != "serviceAccount":
                raise InvalidArgument(
                    f'Principal {address} is of type "serviceAccount". The principal should appear as '
                    f'"serviceAccount:{address}".'
                )
            if not accounts.exists(self._store, address.lower()):
                raise InvalidArgument(f"Service account {address} does not exist.")
        elif kind == "serviceAccount":
            raise InvalidArgument(f"Invalid service account ({address}).")


def denied(principal: Principal, permission: str, key: str) -> ApiError:
    """The refusal, as the API that owns the resource words it."""
    api, _, name = key.partition("/")
    if api == "cloudresourcemanager" and not permission.startswith("resourcemanager."):
        # Of what belongs to a project and is no resource of its own (log entries, zones), its own API speaks.
        api = permission.partition(".")[0]
    details = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "IAM_PERMISSION_DENIED",
            "domain": f"{api}.googleapis.com",
            "metadata": {"permission": permission, "resource": name},
        }
    ]
    if api == "storage":
        return _storage_denied(principal, permission, name)
    if principal.is_anonymous:
        return Unauthenticated(
            "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or "
            "other valid authentication credential. "
            "See https://developers.google.com/identity/sign-in/web/devconsole-project."
        )
    message = f"Permission '{permission}' denied on resource '{name}' (or it may not exist)."
    match api:
        case "secretmanager":
            message = f"Permission '{permission}' denied for resource '{name}' (or it may not exist)."
        case "run":
            message = f"Permission '{permission}' denied on resource '{name}' (or resource may not exist)."
        case "iam" | "iamcredentials" | "logging":
            message = f"Permission '{permission}' denied on resource (or it may not exist)."
            details[0]["domain"] = "iam.googleapis.com"
        case "cloudtasks" | "cloudscheduler":
            message = (
                f'The principal (user or service account) lacks IAM permission "{permission}" for the resource '
                f'"{name}" (or the resource may not exist).'
            )
        case "compute":
            # A list is refused for the project, whatever the path of the collection.
            name = re.sub(r"/(global|regions/[^/]+|zones/[^/]+)$", "", name)
            return PermissionDenied(f"Required '{permission}' permission for '{name}'", reason="forbidden")
        case "sqladmin":
            resource = "/".join(name.split("/")[2:]) or name
            return PermissionDenied(
                "boss::NOT_AUTHORIZED: Not authorized to access resource. "
                f"Possibly missing permission {permission} on resource {resource}.",
                reason="notAuthorized",
                details=details,
            )
        case "artifactregistry" | "cloudresourcemanager":
            full_name = f"//{api}.googleapis.com/{name}"
            message = f"Permission '{permission}' denied on resource '{full_name}' (or it may not exist)."
    return PermissionDenied(message, details=details)


def _storage_denied(principal: Principal, permission: str, name: str) -> ApiError:
    noun = "object" if ".objects." in permission and "/o/" in name else "bucket"
    who = principal.email or "Anonymous caller"
    message = (
        f"{who} does not have {permission} access to the Google Cloud Storage {noun}. "
        f"Permission '{permission}' denied on resource (or it may not exist)."
    )
    if principal.is_anonymous:
        return Unauthenticated(message, reason="required")
    return PermissionDenied(message, reason="forbidden")


def _compile(binding: Mapping[str, Any]) -> _Binding:
    members = frozenset(binding.get("members", ()))
    return _Binding(
        role=binding["role"],
        members=members,
        of_projects=tuple(
            (_CONVENIENCE[kind], project)
            for kind, _, project in (member.partition(":") for member in members)
            if kind in _CONVENIENCE
        ),
        expression=binding["condition"].get("expression", "") if binding.get("condition") else None,
    )


def _without_condition(binding: Mapping[str, Any]) -> dict[str, Any]:
    if not binding.get("condition"):
        return dict(binding)
    digest = hashlib.sha256(repr(sorted(binding["condition"].items())).encode()).hexdigest()[:20]
    return {"role": f"{binding['role']}{_WITH_CONDITION}{digest}", "members": binding["members"]}


def _check_condition(role: str, members: list[str], condition: Mapping[str, Any]) -> None:
    title = condition.get("title", "")
    if not 0 < len(title) <= 100:
        raise InvalidArgument("The title of a condition must hold 1 to 100 characters.")
    if role in _BASIC_ROLES:
        raise InvalidArgument(f"Conditions can't be set on primitive roles: {role}.")
    if {"allUsers", "allAuthenticatedUsers"} & set(members):
        raise InvalidArgument("Conditions can't be set on bindings of allUsers or allAuthenticatedUsers.")
    try:
        compile_condition(condition.get("expression", ""))
    except InvalidCondition as error:
        raise InvalidArgument(f"Invalid condition expression in the binding of {role}: {error}") from None


def _checked_version(policy: Mapping[str, Any], bindings: list[dict[str, Any]]) -> int:
    version = int(policy.get("version") or 0)
    if version not in (0, 1, 3):
        raise InvalidArgument(f"Invalid policy version {version}: use 1, or 3 for conditions.")
    if version != 3 and any("condition" in binding for binding in bindings):
        raise InvalidArgument("The policy has conditional role bindings: its version must be 3.")
    return version or 1


def _checked_audit_configs(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for config in configs:
        if not config.get("service"):
            raise InvalidArgument("An audit config must name its service.")
    return [dict(config) for config in configs if config.get("auditLogConfigs")]


def _masked_fields(update_mask: str | None) -> frozenset[str]:
    if not update_mask:
        return frozenset({"bindings", "etag"})  # the documented default: audit configs stay as they are
    fields = frozenset(
        "auditConfigs" if field.strip() in ("audit_configs", "auditConfigs") else field.strip()
        for field in update_mask.split(",")
    )
    unknown = fields - {"bindings", "etag", "auditConfigs", "version"}
    if unknown:
        raise InvalidArgument(f"updateMask names no field of a policy: {', '.join(sorted(unknown))}")
    return fields


def _canonical(member: str) -> str:
    """E-mail addresses are compared without regard to case."""
    kind, _, address = member.partition(":")
    return f"{kind}:{address.lower()}" if kind in _WITH_EMAIL else member


def _new_etag() -> str:
    # Google's are a microsecond clock in base64, and so begin alike.
    micros = int(datetime.now(UTC).timestamp() * 1_000_000)
    return base64.b64encode(micros.to_bytes(7, "big") + secrets.token_bytes(1)).decode()
