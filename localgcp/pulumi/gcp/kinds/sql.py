"""Cloud SQL: instances, databases, users."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from localgcp.pulumi.gcp.kind import Kind, Work, global_network, project_number
from localgcp.pulumi.gcp.mapping import Body, Encoding, Values, dig
from localgcp.pulumi.gcp.rest import RestError
from localgcp.pulumi.provider import ProviderError

_SERVICE = "services/servicenetworking.googleapis.com/connections"


def _at_least(wanted: Any, actual: Any) -> bool:
    """A disk that Google has made larger is still the one that was asked for."""
    return isinstance(wanted, int) and isinstance(actual, int) and actual >= wanted > 0


@dataclass(frozen=True, kw_only=True)
class Instance(Kind):
    id_form: str = "{name}"

    def path(self, work: Work) -> str:
        return f"projects/{work.project}/instances/{self.values(work)['name']}"

    def _check_private_network(self, work: Work) -> None:
        """Without a connection to Google's services, creation would fail after many minutes."""
        network = dig(work.plan, ("settings", "ipConfiguration", "privateNetwork"))
        if not network:
            return
        name = str(global_network(network, work.project)).rpartition("/")[2]
        query = {"network": f"projects/{project_number(work)}/global/networks/{name}"}
        if not work.call("GET", "servicenetworking", _SERVICE, query=query).get("connections"):
            raise ProviderError(
                f"the network {network} has no private services connection: create a servicenetworking Connection "
                "first and let the instance depend on it"
            )

    def create(self, work: Work) -> Body | None:
        self._check_private_network(work)
        name = self.values(work)["name"]
        if clone := work.plan.get("clone"):
            source_project = clone.get("sourceProject") or work.project
            path = f"projects/{source_project}/instances/{clone['sourceInstanceName']}/clone"
            context = {key: value for key, value in clone.items() if key not in ("sourceInstanceName", "sourceProject")}
            answer = self.post(work, path, {"cloneContext": {**context, "destinationInstanceName": name}})
        else:
            body = {"name": name, **self.encode(work, updating=False)}
            answer = self.post(work, f"projects/{work.project}/instances", body)
        work.id = self.identify(work)
        work.finish(self.api, answer)
        # The provider looks for a root user that anybody could log in as (MySQL has one).
        users = work.call("GET", self.api, f"{self.path(work)}/users").get("items", [])
        for user in users:
            if user.get("name") == "root" and user.get("host") == "%":
                query = {"host": "%", "name": "root"}
                work.finish(self.api, work.call("DELETE", self.api, f"{self.path(work)}/users", query=query))
        return None

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=updating)
        if not updating:
            body.pop("instanceType", None)
            body["region"] = work.location
        return body

    def update(self, work: Work) -> Body | None:
        changed = self.changed_fields(work)
        if not changed:
            return None
        path = self.path(work)
        there = work.call("GET", self.api, path)
        if "databaseVersion" in changed:
            body = {"databaseVersion": work.value("databaseVersion")}
            work.finish(self.api, work.call("PATCH", self.api, path, body=body))
            there = work.call("GET", self.api, path)
        settings = dict(self.encode(work, updating=True).get("settings", {}))
        version = dig(there, ("settings", "settingsVersion"))
        size = dig(there, ("settings", "dataDiskSizeGb"))
        if settings.get("storageAutoResize") and size and int(size) > int(settings.get("dataDiskSizeGb") or 0):
            settings["dataDiskSizeGb"] = str(size)  # a disk can only grow
        body = {"instanceType": there.get("instanceType"), "settings": {**settings, "settingsVersion": version}}
        if "rootPassword" in changed:
            body["rootPassword"] = work.value("rootPassword")
        for name in ("maintenanceVersion", "replicaNames"):
            if name in changed:
                body[name] = work.value(name)
        work.finish(self.api, work.call("PUT", self.api, path, body=body))
        return None

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        live.pop("clone", None)
        addresses = {a.get("type"): a.get("ipAddress", "") for a in reversed(body.get("ipAddresses", []))}
        first = next((a.get("ipAddress", "") for a in body.get("ipAddresses", [])), "")
        live["firstIpAddress"] = first
        live["publicIpAddress"] = addresses.get("PRIMARY", "")
        live["privateIpAddress"] = addresses.get("PRIVATE", "")
        certificate = body.get("serverCaCert") or {}
        fields = ("cert", "commonName", "createTime", "expirationTime", "sha1Fingerprint")
        live["serverCaCerts"] = [{name: certificate.get(name, "") for name in fields}] if certificate else []
        live["region"] = body.get("region", work.location)
        live["project"] = work.project
        return live

    def delete(self, work: Work) -> None:
        query = {"finalBackupDescription": str(work.value("finalBackupDescription") or "")}
        work.finish(self.api, work.call("DELETE", self.api, self.path(work), query=query))

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        sources = ("settings", "clone", "pointInTimeRestoreContext")
        if all(inputs.get(name) is None for name in sources):
            return [("settings", f"is required and missing: one of {', '.join(sources)} must be set")]
        return super().check(inputs)

    def parse_id(self, id: str) -> Values:
        parts = id.split("/")
        return {
            "name": parts[-1],
            **({"project": parts[-3] if "instances" in parts else parts[0]} if "/" in id else {}),
        }


_ALWAYS: Mapping[str, Mapping[str, Any]] = {
    "settings": {
        "enableDataplexIntegration": False,
        "enableGoogleMlIntegration": False,
        "retainBackupsOnDelete": False,
    },
    "settings.backupConfiguration": {"binaryLogEnabled": False},
    "settings.insightsConfig": {"enhancedQueryInsightsEnabled": False},
    "settings.ipConfiguration": {"requireSsl": None, "ipv4Enabled": False},
}

_SHAPE = Encoding(
    always=_ALWAYS,
    sent_outputs=frozenset({"settings.backupConfiguration.backupTier"}),
    keep_zero=frozenset({"settings.diskAutoresize"}),
    skip=frozenset({"maintenanceVersion"}),
    text_numbers=True,
)

INSTANCE = Instance(
    type="gcp:sql/databaseInstance:DatabaseInstance",
    api="sqladmin",
    collection="projects/{project}/instances",
    encoding=_SHAPE,
    update_encoding=replace(_SHAPE, always={**_ALWAYS, "settings": {**_ALWAYS["settings"], "dataCacheConfig": {}}}),
    alike={"settings.diskSize": _at_least},
)


@dataclass(frozen=True, kw_only=True)
class PartOfInstance(Kind):
    def _instance(self, work: Work) -> str:
        return f"projects/{work.project}/instances/{str(work.value('instance')).rpartition('/')[2]}"

    def get(self, work: Work) -> Body | None:
        try:
            # Is there an instance that could answer?
            instance = work.call("GET", self.api, self._instance(work))
            if instance.get("state") not in (None, "RUNNABLE") or _is_stopped(instance):
                return self.without_instance(work)
            return self.find(work)
        except RestError as error:
            # Cloud SQL says 403 of an instance that does not exist.
            if error.status == 404 or (error.status == 403 and "notAuthorized" in str(error)):
                return None
            raise

    def find(self, work: Work) -> Body | None:
        raise NotImplementedError

    def without_instance(self, work: Work) -> Body | None:
        """What is known while the instance cannot be asked: that nothing is known to have changed."""
        return {"name": work.value("name"), "instance": work.value("instance"), **_remembered(work)}


def _is_stopped(instance: Mapping[str, Any]) -> bool:
    return bool(dig(instance, ("settings", "activationPolicy")) == "NEVER")


def _remembered(work: Work) -> Values:
    return {
        name: work.state[name] for name in ("charset", "collation", "host", "type", "selfLink") if name in work.state
    }


@dataclass(frozen=True, kw_only=True)
class Database(PartOfInstance):
    def encode(self, work: Work, *, updating: bool) -> Body:
        settings = {name: work.value(name) for name in ("charset", "collation") if work.value(name)}
        name = self.values(work)["name"]
        return {**settings, "instance": self._instance(work).rpartition("/")[2], "name": name}

    def create(self, work: Work) -> Body | None:
        path, body = f"{self._instance(work)}/databases", self.encode(work, updating=False)
        answer = self.post(work, path, body)
        work.id = self.identify(work)
        work.finish(self.api, answer)
        return None

    def path(self, work: Work) -> str:
        return f"{self._instance(work)}/databases/{self.values(work)['name']}"

    def find(self, work: Work) -> Body | None:
        return work.rest_get(self.api, self.path(work))

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        return {**super().decode(work, body), "instance": work.value("instance")}


DATABASE = Database(
    type="gcp:sql/database:Database",
    api="sqladmin",
    collection="projects/{project}/instances/{instance}/databases",
    update_method="PUT",
)


@dataclass(frozen=True, kw_only=True)
class User(PartOfInstance):
    """Users have no address of their own: they are listed, and changed by query parameters."""

    id_form: str = "{name}/{host}/{instance}"
    short_name: bool = False

    def _path(self, work: Work) -> str:
        return f"{self._instance(work)}/users"

    def identify(self, work: Work) -> str:
        return f"{work.value('name')}/{work.value('host') or ''}/{self._instance(work).rpartition('/')[2]}"

    def _query(self, work: Work) -> dict[str, str]:
        return {"host": str(work.value("host") or ""), "name": str(work.value("name"))}

    def encode(self, work: Work, *, updating: bool) -> Body:
        body = super().encode(work, updating=False)
        if body.get("type") == "BUILT_IN":
            del body["type"]
        if updating:
            # Host and type identify a user and do not change.
            body = {key: value for key, value in body.items() if key not in ("host", "type", "iamEmail")}
        return {**body, "instance": self._instance(work).rpartition("/")[2], "name": work.value("name")}

    def create(self, work: Work) -> Body | None:
        answer = self.post(work, self._path(work), self.encode(work, updating=False))
        work.id = self.identify(work)
        work.finish(self.api, answer)
        return None

    def update(self, work: Work) -> Body | None:
        if self.changed_fields(work):
            query = {**self._query(work), "revokeExistingRoles": "false"}
            body = self.encode(work, updating=True)
            work.finish(self.api, work.call("PUT", self.api, self._path(work), query=query, body=body))
        return None

    def delete(self, work: Work) -> None:
        work.finish(self.api, work.call("DELETE", self.api, self._path(work), query=self._query(work)))

    def find(self, work: Work) -> Body | None:
        users = work.call("GET", self.api, self._path(work)).get("items", [])
        name = str(work.value("name"))
        # PostgreSQL shortens the name of a service account by its last part.
        names = {name, name.removesuffix(".gserviceaccount.com")}
        host = str(work.value("host") or "")
        return next((u for u in users if u.get("name") in names and u.get("host", "") in (host, "%")), None)

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        live = super().decode(work, body)
        live.pop("password", None)
        return {**live, "name": work.value("name"), "instance": work.value("instance"), "host": body.get("host", ""),
                "project": work.project}  # fmt: skip

    def parse_id(self, id: str) -> Values:
        parts = id.split("/")
        if len(parts) < 2:
            raise ProviderError(f"{id!r} is no id of a User: expected <project>/<instance>/<name>")
        if len(parts) == 3 and not parts[1]:
            return {"name": parts[0], "host": "", "instance": parts[2]}  # as a creation writes it
        project, instance, *host, name = parts if len(parts) > 2 else ["", *parts]
        place = {"project": project} if project else {}
        return {**place, "instance": instance, "host": "".join(host), "name": name}


def _same_type(a: Any, b: Any) -> bool:
    """An ordinary user has no type in some answers."""
    return {a or "BUILT_IN", b or "BUILT_IN"} == {"BUILT_IN"}


USER = User(
    type="gcp:sql/user:User",
    api="sqladmin",
    collection="projects/{project}/instances/{instance}/users",
    encoding=Encoding(skip=frozenset({"iamEmail"})),
    alike={"type": _same_type},
)

KINDS = (INSTANCE, DATABASE, USER)
