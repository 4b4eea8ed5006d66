"""Who may do what: one member of one role, and audit configs.

Both are parts of a policy that others change as well. The whole policy is read, changed and written with the etag that
was read; whoever was faster makes the write fail, and it is done again with what is there then.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tenacity import Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from localgcp.pulumi.gcp.kind import Kind, Work
from localgcp.pulumi.gcp.mapping import Body, Values
from localgcp.pulumi.gcp.rest import RestError
from localgcp.pulumi.provider import ProviderError

_ATTEMPTS = 12
#: One writer per policy in this process, so that a stack's members do not race against one another.
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_locks_guard = threading.Lock()

_PREFIXES = tuple(
    f"{kind}:"
    for kind in (
        *("user", "group", "serviceAccount", "domain", "principal", "principalSet", "deleted", "iamMember"),
        *("projectOwner", "projectEditor", "projectViewer"),
    )
)
_EVERYBODY = ("allUsers", "allAuthenticatedUsers")


def _lock(policy: str) -> threading.Lock:
    with _locks_guard:
        return _locks[policy]


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, RestError) and error.status in (409, 412)


@dataclass(frozen=True, kw_only=True)
class PolicyPart(Kind):
    auto_name: bool = False
    #: The resource whose policy it is, below the API's address, and the same in ids.
    resource: str
    resource_in_id: str = ""
    #: How the policy is read. Storage has a path of its own instead of a verb.
    get_method: Literal["GET", "POST"] = "GET"
    get_query: Mapping[str, str] = field(default_factory=dict)
    get_body: Any = None
    verbs: tuple[str, str] = (":getIamPolicy", ":setIamPolicy")
    set_method: Literal["POST", "PUT"] = "POST"
    update_mask_in_body: str = ""
    #: Properties that may be given as a path, of which the last segment counts.
    cut: tuple[str, ...] = ()

    def resource_path(self, work: Work, form: str = "") -> str:
        values = self.values(work)
        for name in self.cut:
            values[name] = values[name].rpartition("/")[2]
        return (form or self.resource).format_map(values)

    def values(self, work: Work) -> dict[str, str]:
        values = {}
        if "{project}" in self.resource:
            values["project"] = work.project.removeprefix("projects/")
        if "{location}" in self.resource:
            values["location"] = work.location
        for name in self.properties:
            value = work.value(name)
            if isinstance(value, str) and name not in values:
                values[name] = value
        return values

    def read_policy(self, work: Work) -> Body:
        path = self.resource_path(work) + self.verbs[0]
        return work.call(self.get_method, self.api, path, query=self.get_query, body=self.get_body)

    def write_policy(self, work: Work, policy: Body) -> None:
        path = self.resource_path(work) + self.verbs[1]
        body: Body = policy
        if self.set_method == "POST":
            body = {"policy": policy}
            if self.update_mask_in_body:
                body["updateMask"] = self.update_mask_in_body
        work.call(self.set_method, self.api, path, body=body)

    def change_policy(self, work: Work, change: Callable[[Body], Body]) -> None:
        """Read, change, write; again when somebody else was faster."""
        with _lock(f"{self.api}/{self.resource_path(work)}"):
            for attempt in Retrying(
                retry=retry_if_exception(_is_conflict),
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_random_exponential(multiplier=0.05, max=2.0),
                reraise=True,
            ):
                with attempt:
                    policy = change(self.read_policy(work))
                    for unset in ("bindings", "auditConfigs"):
                        if not policy.get(unset):
                            policy.pop(unset, None)
                    self.write_policy(work, policy)

    def get(self, work: Work) -> Body | None:
        try:
            return self.read_policy(work)
        except RestError as error:
            # Without its resource, there is no policy either.
            if error.status == 404:
                return None
            raise

    def settings(self, policy: Mapping[str, Any]) -> Body:
        """What of a policy that was read is written back."""
        return {
            name: value for name, value in policy.items() if name in ("bindings", "auditConfigs", "etag", "version")
        }


@dataclass(frozen=True, kw_only=True)
class Member(PolicyPart):
    def identify(self, work: Work) -> str:
        parts = [self.resource_path(work, self.resource_in_id), work.value("role"), work.value("member")]
        if condition := work.value("condition"):
            parts += [condition[name] for name in ("title", "description", "expression") if condition.get(name)]
        return "/".join(parts)

    def create(self, work: Work) -> Body | None:
        self.change_policy(work, lambda policy: self._with(work, policy))
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        return None

    def delete(self, work: Work) -> None:
        self.change_policy(work, lambda policy: self._without(work, policy))
        self.read_policy(work)  # has it held?

    def _is_mine(self, work: Work, binding: Mapping[str, Any]) -> bool:
        return binding.get("role") == work.value("role") and _condition(binding.get("condition")) == _condition(
            work.value("condition")
        )

    def _with(self, work: Work, policy: Body) -> Body:
        policy = self.settings(policy)
        member = work.value("member")
        bindings = [dict(binding) for binding in policy.get("bindings", [])]
        mine = next((binding for binding in bindings if self._is_mine(work, binding)), None)
        if mine is None:
            mine = {"role": work.value("role"), "members": []}
            if condition := _condition(work.value("condition")):
                mine["condition"] = condition
            bindings.append(mine)
        if member not in mine["members"]:
            mine["members"] = [*mine["members"], member]
        return {**policy, "bindings": bindings, "version": 3}

    def _without(self, work: Work, policy: Body) -> Body:
        policy = self.settings(policy)
        bindings = []
        for binding in policy.get("bindings", []):
            members = binding.get("members", [])
            if self._is_mine(work, binding):
                members = [member for member in members if member != work.value("member")]
            if members:
                bindings.append({**binding, "members": members})
        return {**policy, "bindings": bindings, "version": 3}

    def outputs(self, work: Work, body: Body | None = None) -> Values | None:
        policy = self.get(work)
        if policy is None:
            return None
        if not work.inputs:
            self._adopt_condition(work, policy)
        bindings = [binding for binding in policy.get("bindings", []) if self._is_mine(work, binding)]
        if not any(work.value("member") in binding.get("members", []) for binding in bindings):
            return None
        live = {name: work.value(name) for name in self.properties if work.value(name) is not None}
        if "project" in self.properties:
            live["project"] = work.project
        if "location" in self.properties:
            live["location"] = work.location
        return {**live, "etag": policy.get("etag", "")}

    def _adopt_condition(self, work: Work, policy: Mapping[str, Any]) -> None:
        """Complete the condition of which an import id has only the title."""
        wanted = work.value("condition")
        for binding in policy.get("bindings", []):
            condition = binding.get("condition")
            is_mine = binding.get("role") == work.value("role")
            if wanted and condition and is_mine and condition.get("title") == wanted["title"]:
                work.plan["condition"] = condition

    def parse_id(self, id: str) -> Values:
        """`<resource> <role> <member>`, separated by blanks, as `pulumi import` takes it.

        The title of a condition may follow.
        """
        parts = id.split(" ", 3)
        if len(parts) < 3:
            raise ProviderError(
                f"{id!r} is no id of a {self.label}: expected '<resource> <role> <member>', and the title of its "
                "condition if it has one"
            )
        resource, role, member, *title = parts
        probe = Kind(type=self.type, api=self.api, collection="", id_form=self.resource_in_id or self.resource)
        condition = {"condition": {"title": title[0]}} if title else {}
        return {**probe.parse_id(resource), "role": role, "member": member, **condition}

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        failures = super().check(inputs)
        member = inputs.get("member")
        if isinstance(member, str) and member not in _EVERYBODY and not member.startswith(_PREFIXES):
            failures.append(
                ("member", f"{member!r} names nobody: expected allUsers, user:…, group:… or serviceAccount:…")
            )
        role = inputs.get("role")
        if isinstance(role, str) and "roles/" not in role:
            failures.append(("role", f"{role!r} is no role: expected roles/… or projects/…/roles/…"))
        return failures


def _condition(condition: Mapping[str, Any] | None) -> Values:
    return {name: value for name, value in (condition or {}).items() if value}


@dataclass(frozen=True, kw_only=True)
class AuditConfig(PolicyPart):
    def identify(self, work: Work) -> str:
        return f"{work.project}/audit_config/{work.value('service')}"

    def parse_id(self, id: str) -> Values:
        project, _, service = id.replace(" ", "/audit_config/").partition("/audit_config/")
        return {"project": project, "service": service}

    def _others(self, work: Work, policy: Body) -> list[Body]:
        return [config for config in policy.get("auditConfigs", []) if config.get("service") != work.value("service")]

    def _with(self, work: Work, policy: Body) -> Body:
        logs = []
        for config in work.value("auditLogConfigs"):
            entry = {"logType": config["logType"]}
            if config.get("exemptedMembers"):
                entry["exemptedMembers"] = config["exemptedMembers"]
            logs.append(entry)
        mine = {"service": work.value("service"), "auditLogConfigs": logs}
        return {**self.settings(policy), "auditConfigs": [*self._others(work, policy), mine]}

    def create(self, work: Work) -> Body | None:
        self.change_policy(work, lambda policy: self._with(work, policy))
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        self.change_policy(work, lambda policy: self._with(work, policy))
        return None

    def delete(self, work: Work) -> None:
        self.change_policy(work, lambda policy: {**self.settings(policy), "auditConfigs": self._others(work, policy)})
        self.read_policy(work)

    def outputs(self, work: Work, body: Body | None = None) -> Values | None:
        policy = self.get(work)
        configs = (policy or {}).get("auditConfigs", [])
        mine = next((config for config in configs if config.get("service") == work.value("service")), None)
        if policy is None or mine is None:
            return None
        return {
            "project": work.project,
            "service": work.value("service"),
            "auditLogConfigs": mine.get("auditLogConfigs", []),
            "etag": policy.get("etag", ""),
        }


_PROJECT_POLICY: Mapping[str, Any] = {
    "api": "cloudresourcemanager",
    "collection": "projects",
    "resource": "projects/{project}",
    "resource_in_id": "{project}",
    "get_method": "POST",
    "get_body": {"options": {"requestedPolicyVersion": 3}},
    "update_mask_in_body": "bindings,etag,auditConfigs",
}
_REQUESTED = {"options.requestedPolicyVersion": "3"}


@dataclass(frozen=True, kw_only=True)
class SecretMember(Member):
    def resource_path(self, work: Work, form: str = "") -> str:
        secret = str(work.value("secretId"))
        return secret if secret.startswith("projects/") else super().resource_path(work, form)


@dataclass(frozen=True, kw_only=True)
class BucketMember(Member):
    def resource_path(self, work: Work, form: str = "") -> str:
        return f"b/{str(work.value('bucket')).removeprefix('b/')}"


KINDS = (
    Member(type="gcp:projects/iAMMember:IAMMember", **_PROJECT_POLICY),
    AuditConfig(type="gcp:projects/iAMAuditConfig:IAMAuditConfig", **_PROJECT_POLICY),
    Member(
        type="gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
        api="artifactregistry",
        collection="",
        resource="projects/{project}/locations/{location}/repositories/{repository}",
        cut=("repository",),
    ),
    Member(
        type="gcp:cloudrunv2/serviceIamMember:ServiceIamMember",
        api="run",
        collection="",
        resource="projects/{project}/locations/{location}/services/{name}",
        cut=("name",),
    ),
    Member(
        type="gcp:cloudrunv2/jobIamMember:JobIamMember",
        api="run",
        collection="",
        resource="projects/{project}/locations/{location}/jobs/{name}",
        cut=("name",),
    ),
    Member(
        type="gcp:cloudtasks/queueIamMember:QueueIamMember",
        api="cloudtasks",
        collection="",
        resource="projects/{project}/locations/{location}/queues/{name}",
        get_method="POST",
        cut=("name",),
    ),
    Member(
        type="gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
        api="cloudkms",
        collection="",
        resource="{cryptoKeyId}",
        get_query=_REQUESTED,
    ),
    SecretMember(
        type="gcp:secretmanager/secretIamMember:SecretIamMember",
        api="secretmanager",
        collection="",
        resource="projects/{project}/secrets/{secretId}",
        get_query=_REQUESTED,
    ),
    Member(
        type="gcp:serviceaccount/iAMMember:IAMMember",
        api="iam",
        collection="",
        resource="{serviceAccountId}",
        get_method="POST",
        get_query=_REQUESTED,
    ),
    BucketMember(
        type="gcp:storage/bucketIAMMember:BucketIAMMember",
        api="storage",
        collection="",
        resource="b/{bucket}",
        get_query={"optionsRequestedPolicyVersion": "3"},
        verbs=("/iam", "/iam"),
        set_method="PUT",
    ),
)
