"""What a project has: enabled APIs, service identities, custom roles, service accounts, service connections."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from localgcp.pulumi.gcp.kind import Kind, Work, project_number
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values
from localgcp.pulumi.gcp.rest import RestError
from localgcp.pulumi.gcp.values import relative_link
from localgcp.pulumi.provider import ProviderError

_ENABLED = {"fields": "services/name,nextPageToken", "filter": "state:ENABLED", "pageSize": "200"}
_USAGE = "serviceusage/v1"
_ACCOUNT_ID = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]")


def _enabled_services(work: Work) -> set[str]:
    names: set[str] = set()
    query = dict(_ENABLED)
    while True:
        page = work.call("GET", _USAGE, f"projects/{work.project}/services", query=query)
        names |= {str(service["name"]).rpartition("/")[2] for service in page.get("services", [])}
        if not page.get("nextPageToken"):
            return names
        query["pageToken"] = page["nextPageToken"]


@dataclass(frozen=True, kw_only=True)
class EnabledService(Kind):
    name: str = "service"
    auto_name: bool = False
    id_form: str = "{project}/{name}"

    def create(self, work: Work) -> Body | None:
        service = str(work.value("service"))
        if service not in _enabled_services(work):
            path = f"projects/{work.project}/services/{service}:enable"
            work.finish("serviceusage", work.call("POST", _USAGE, path, body={}))
            # Enabling is done before the list knows.
            while service not in _enabled_services(work):
                work.pause()
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        return None

    def outputs(self, work: Work, body: Body | None = None) -> Values | None:
        try:
            work.call("GET", "cloudresourcemanager", f"projects/{work.project}")
        except RestError as error:
            if error.status == 404:
                return None
            raise
        if str(work.value("service")) not in _enabled_services(work):
            return None
        return {"project": work.project, "service": work.value("service")}

    def delete(self, work: Work) -> None:
        if not work.value("disableOnDestroy"):
            return
        body: Body = {"checkIfServiceHasUsage": "CHECK" if work.value("checkIfServiceHasUsageOnDestroy") else "SKIP"}
        if work.value("disableDependentServices"):
            body["disableDependentServices"] = True
        path = f"projects/{work.project}/services/{work.value('service')}:disable"
        work.finish("serviceusage", work.call("POST", _USAGE, path, body=body))


SERVICE = EnabledService(
    type="gcp:projects/service:Service", api="serviceusage", collection="projects/{project}/services"
)


@dataclass(frozen=True, kw_only=True)
class ServiceIdentity(Kind):
    """Made on demand and never read or deleted: the finished operation says all there is."""

    name: str = "service"
    auto_name: bool = False

    def create(self, work: Work) -> Body | None:
        answer = work.call("POST", self.api, f"{self.path(work)}:generateServiceIdentity")
        body = work.finish(self.api, answer).get("response", {})
        work.id = self.identify(work)
        return dict(body)

    def get(self, work: Work) -> Body | None:
        return {"email": work.state.get("email", "")}

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        email = body.get("email", "")
        member = f"serviceAccount:{email}" if email else ""
        return {"project": work.project, "service": work.value("service"), "email": email, "member": member}

    def delete(self, work: Work) -> None:
        return None


SERVICE_IDENTITY = ServiceIdentity(
    type="gcp:projects/serviceIdentity:ServiceIdentity",
    api="serviceusage",
    collection="projects/{project}/services",
)


@dataclass(frozen=True, kw_only=True)
class CustomRole(Kind):
    """A deleted role keeps its id for a while; creating it again brings it back."""

    def create(self, work: Work) -> Body | None:
        role = self.encode(work, updating=False)
        there = work.rest_get(self.api, self.path(work))
        if there is not None and there.get("deleted"):
            work.call("POST", self.api, f"{self.path(work)}:undelete", body={})
            work.call("PATCH", self.api, self.path(work), body=role)
        else:
            self.post(work, self.collection_path(work), {"roleId": self.values(work)["name"], "role": role})
        work.id = self.identify(work)
        return None

    def update(self, work: Work) -> Body | None:
        there = work.call("GET", self.api, self.path(work))
        if there.get("deleted"):
            work.call("POST", self.api, f"{self.path(work)}:undelete", body={})
        if not self.changed_fields(work):
            return there
        return work.call("PATCH", self.api, self.path(work), body=self.encode(work, updating=True))

    def is_gone(self, body: Mapping[str, Any]) -> bool:
        return bool(body.get("deleted"))


CUSTOM_ROLE = CustomRole(
    type="gcp:projects/iAMCustomRole:IAMCustomRole",
    api="iam",
    collection="projects/{project}/roles",
    name="roleId",
    name_joint="_",
)


@dataclass(frozen=True, kw_only=True)
class ServiceAccount(Kind):
    def values(self, work: Work) -> dict[str, str]:
        values = super().values(work)
        account = values.get("accountId") or str(work.value("email")).partition("@")[0]
        return {**values, "accountId": account, "name": f"{account}@{work.project}.iam.gserviceaccount.com"}

    def create(self, work: Work) -> Body | None:
        body = {"accountId": work.value("accountId"), "serviceAccount": self._settings(work)}
        try:
            self.post(work, self.collection_path(work), body)
        except RestError as error:
            if not (error.status == 409 and work.value("createIgnoreAlreadyExists")):
                raise
        work.id = self.identify(work)
        if work.value("disabled"):
            work.call("POST", self.api, f"{self.path(work)}:disable", body={})
        return None

    def _settings(self, work: Work) -> Body:
        return {name: work.value(name) for name in ("displayName", "description") if work.inputs.get(name)}

    def update(self, work: Work) -> Body | None:
        path = self.path(work)
        there = work.call("GET", self.api, path)
        fields = [
            rest
            for name, rest in (("displayName", "display_name"), ("description", "description"))
            if self.has_changed(work, name)
        ]
        if self.has_changed(work, "disabled"):
            disabled = bool(work.inputs.get("disabled"))
            work.call("POST", self.api, f"{path}:{'disable' if disabled else 'enable'}", body={})
            there = {**there, "disabled": disabled}
        if not fields:
            return there
        account = {**self._settings(work), "etag": there.get("etag", "")}
        body = {"serviceAccount": account, "updateMask": ",".join(fields)}
        work.call("PATCH", self.api, path, body=body)
        return None

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        email = str(body["email"])
        return {**live, "accountId": email.partition("@")[0], "member": f"serviceAccount:{email}",
                "disabled": bool(body.get("disabled"))}  # fmt: skip

    def parse_id(self, id: str) -> Values:
        project, _, email = id.removeprefix("projects/").partition("/serviceAccounts/")
        if not email:
            raise ProviderError(f"{id!r} is no id of an Account: expected projects/<project>/serviceAccounts/<email>")
        return {"project": project, "accountId": email.partition("@")[0]}

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        account = inputs.get("accountId")
        if isinstance(account, str) and not _ACCOUNT_ID.fullmatch(account):
            reason = "must hold 6 to 30 lower-case letters, digits and dashes, and begin with a letter"
            return [("accountId", f"{account!r} {reason}")]
        return []


SERVICE_ACCOUNT = ServiceAccount(
    type="gcp:serviceaccount/account:Account",
    api="iam",
    collection="projects/{project}/serviceAccounts",
    name="accountId",
    longest_name=30,
)


@dataclass(frozen=True, kw_only=True)
class Connection(Kind):
    """Private services access. The API knows the network by its project's number only."""

    auto_name: bool = False

    def _network(self, work: Work) -> str:
        network = relative_link(str(work.value("network")))
        return network if "/" in network else f"projects/{work.project}/global/networks/{network}"

    def _numbered_network(self, work: Work) -> str:
        # A connection has no project of its own: its network's counts, whatever the provider's default is.
        _, project, _, _, name = self._network(work).split("/")
        return f"projects/{project_number(work, project)}/global/networks/{name}"

    def _collection(self, work: Work) -> str:
        return f"services/{work.value('service')}/connections"

    def identify(self, work: Work) -> str:
        return f"{quote(self._network(work), safe='')}:{work.value('service')}"

    def parse_id(self, id: str) -> Values:
        from urllib.parse import unquote

        network, _, service = unquote(id).rpartition(":")
        return {"network": network, "service": service}

    def create(self, work: Work) -> Body | None:
        body = {"network": self._numbered_network(work), "reservedPeeringRanges": work.value("reservedPeeringRanges")}
        work.id = self.identify(work)
        try:
            work.finish(self.api, self.post(work, self._collection(work), body))
        except RestError as error:
            if _CONNECTED not in str(error) or not work.value("updateOnCreationFail"):
                raise
            self._patch(work, body)
        return None

    def update(self, work: Work) -> Body | None:
        if self.has_changed(work, "reservedPeeringRanges"):
            body = {
                "network": self._numbered_network(work),
                "reservedPeeringRanges": work.value("reservedPeeringRanges"),
            }
            self._patch(work, body)
        return None

    def _patch(self, work: Work, body: Body) -> None:
        query = {"updateMask": "reservedPeeringRanges", "force": "true"}
        work.finish(self.api, work.call("PATCH", self.api, f"{self._collection(work)}/-", query=query, body=body))

    def get(self, work: Work) -> Body | None:
        network = self._numbered_network(work)
        found = work.call("GET", self.api, self._collection(work), query={"network": network}).get("connections", [])
        return next((each for each in found if each.get("network", network) == network), None)

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        return {
            "network": work.value("network"),
            "service": work.value("service"),
            "peering": body.get("peering", ""),
            "reservedPeeringRanges": body.get("reservedPeeringRanges", []),
        }

    def delete(self, work: Work) -> None:
        peering = work.state.get("peering") or "servicenetworking-googleapis-com"
        body = {"consumerNetwork": self._numbered_network(work)}
        try:
            work.finish(self.api, work.call("POST", self.api, f"{self._collection(work)}/{peering}", body=body))
        except RestError as error:
            if _IN_USE not in str(error) or work.value("deletionPolicy") != "REMOVE_PEERING":
                raise
            path = f"{self._network(work)}/removePeering"
            work.finish("compute", work.call("POST", "compute", path, body={"name": peering}))


#: By their texts, Google's refusals are known to the provider: they have no reason of their own.
_CONNECTED = "Cannot modify allocated ranges in CreateConnection."
_IN_USE = "are still using this connection"


def _same_ranges(a: Any, b: Any) -> bool:
    return isinstance(a, list) and isinstance(b, list) and sorted(map(str, a)) == sorted(map(str, b))


CONNECTION = Connection(
    type="gcp:servicenetworking/connection:Connection",
    api="servicenetworking",
    collection="services/{service}/connections",
    encoding=Encoding(),
    alike={"reservedPeeringRanges": _same_ranges},
)

KINDS = (SERVICE, SERVICE_IDENTITY, CUSTOM_ROLE, SERVICE_ACCOUNT, CONNECTION)
