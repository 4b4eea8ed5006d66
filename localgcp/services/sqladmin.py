"""Cloud SQL Admin: instances that are real Postgres servers, their databases and users, and the connectors' way in."""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast, get_args

import psycopg

from localgcp.clock import seconds, timestamp
from localgcp.errors import (
    Aborted,
    AlreadyExists,
    ApiError,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    Unimplemented,
)
from localgcp.generic import fingerprint, page
from localgcp.region import Region
from localgcp.service import Call, Service
from localgcp.sql import admin
from localgcp.sql.addresses import choose_address
from localgcp.sql.certificates import EPHEMERAL_LIFETIME, ssl_cert
from localgcp.sql.cluster import ClusterError
from localgcp.sql.flags import CLOUD_SQL_FLAGS, is_reserved, needs_restart
from localgcp.sql.instances import (
    changed_settings,
    check_change,
    check_identity,
    check_password,
    check_settings,
    invalid,
    ip_addresses,
    major_version,
    spec_of,
    with_defaults,
)
from localgcp.sql.servers import Servers
from localgcp.sql.template import SUPERUSER, Setting
from localgcp.sql.tiers import named_tiers
from localgcp.store import Resource
from localgcp.validation import without_nulls

LINK = "https://sqladmin.googleapis.com/sql/v1beta4"
DEFAULT_LOCATION = "us-central1"
WATCH_INTERVAL = timedelta(seconds=2)

log = logging.getLogger(__name__)

service = Service("sqladmin")
service.allow(
    "cloudsql.instances", "instances", restart="cloudsql.instances.restart", failover="cloudsql.instances.failover"
)
service.allow("cloudsql.databases", "databases")
service.allow("cloudsql.users", "users")
service.permissions |= {
    "connect.get": "cloudsql.instances.get",
    "connect.generateEphemeral": None,
    "sslCerts.createEphemeral": None,
    "instances.listServerCas": "cloudsql.instances.listServerCas",
    "operations.get": "cloudsql.instances.get",
    "operations.list": "cloudsql.instances.get",
    "tiers.list": "cloudsql.instances.list",
    # Google asks for no permission: the table is the same for everybody.
    "flags.list": None,
}
#: A backup that was answered and not taken would be worse than none.
NOT_HERE = (
    *(f"backupRuns.{verb}" for verb in ("delete", "get", "insert", "list")),
    *(f"backups.{verb}Backup" for verb in ("create", "delete", "get", "update")),
    *(f"Backups.{verb}Backup" for verb in ("Create", "Delete", "Get", "Update")),
    *("backups.listBackups", "Backups.ListBackups"),
    *(f"instances.{verb}" for verb in ("clone", "export", "import", "pointInTimeRestore", "restoreBackup")),
    *(f"instances.{verb}" for verb in ("demote", "demoteMaster", "promoteReplica", "switchover")),
    *(f"instances.{verb}" for verb in ("startReplica", "stopReplica")),
    *(f"instances.{verb}" for verb in ("addServerCa", "resetSslConfig", "rotateServerCa")),
    *(f"sslCerts.{verb}" for verb in ("delete", "get", "insert", "list")),
)
service.permissions |= dict.fromkeys(NOT_HERE)


class Claim:
    """An instance that one operation has to itself, from its request to its end."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self.is_handed_on = False

    def until_done(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, which keeps the claim until it has ended."""
        self.is_handed_on = True

        def run() -> None:
            try:
                work()
            finally:
                self._release()

        return run


class Instances:
    """The servers of one region, and what keeps two changes of one instance apart."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.servers = Servers(region.settings.data_dir, self.authenticate)
        self._locks: dict[str, threading.RLock] = {}
        self._claimed: set[str] = set()
        self._guard = threading.Lock()
        #: Held while an address is chosen and written down.
        self.choosing = threading.Lock()

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Databases and users of an instance are changed one at a time, and not while the instance itself changes."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.RLock())
        with lock:
            yield

    @contextmanager
    def claimed(self, key: str) -> Iterator[Claim]:
        """For a change of the instance itself. Raises Aborted while another one is under way."""
        with self._guard:
            if key in self._claimed:
                raise Aborted(
                    "Operation failed because another operation was already in progress. "
                    "Try your request after the current operation is complete.",
                    reason="operationInProgress",
                )
            self._claimed.add(key)
        claim = Claim(lambda: self._claimed.discard(key))
        try:
            yield claim
        finally:
            if not claim.is_handed_on:
                self._claimed.discard(key)

    def all(self) -> list[Resource]:
        return [found for found in self.region.store.scan("sqladmin/") if found.get("kind") == "sql#instance"]

    def authenticate(self, connection_name: str, user: str, token: str) -> bool:
        """Whether the token is of the account that the database user stands for, and the account may log in."""
        project, _, name = connection_name.rsplit(":", 2)
        try:
            principal = self.region.tokens.principal(token)
        except ApiError:
            log.info("IAM login of %s to %s refused: the access token is not valid", user, connection_name)
            return False
        email = f"{user}.gserviceaccount.com" if user.endswith(".iam") else user
        if principal.email is None or principal.email.lower() != email.lower():
            log.info("IAM login of %s to %s refused: the access token is of %s", user, connection_name, principal.email)
            return False
        allowed = self.region.iam.allows(
            principal, "cloudsql.instances.login", f"sqladmin/projects/{project}/instances/{name}"
        )
        if not allowed:
            log.info("IAM login of %s to %s refused: no cloudsql.instances.login", user, connection_name)
        return allowed


_by_region: dict[Region, Instances] = {}


def instances_of(region: Region) -> Instances:
    return _by_region[region]


# Start, stop, and what a crash left


@service.on_start
async def start(region: Region) -> None:
    instances = Instances(region)
    _by_region[region] = instances
    await region.run_in_thread(instances.servers.open)
    await asyncio.gather(*(region.run_in_thread(recover, instances, found) for found in instances.all()))
    await region.run_in_thread(remove_orphans, instances)
    region.spawn(watch(instances))


@service.on_stop
async def stop(region: Region) -> None:
    instances = _by_region.pop(region, None)
    if instances is not None:
        await asyncio.to_thread(lambda: instances.servers.close(stop_postgres=True))


def recover(instances: Instances, instance: Resource) -> None:
    """Finish what was begun, and take over or start what should run."""
    store = instances.region.store
    try:
        if instance["state"] == "PENDING_DELETE":
            instances.servers.delete(spec_of(instance))
            store.delete(instance.key)
            finish_operations(instances.region, instance, "DELETE")
        elif instance["state"] == "PENDING_CREATE":
            finish_creation(instances, instance.key)
            finish_operations(instances.region, instance, "CREATE")
        elif instance["settings"]["activationPolicy"] == "NEVER":
            instances.servers.stop(spec_of(instance))
        else:
            instances.servers.start(spec_of(instance))
    except Exception:
        # One broken instance must not keep the region, and every other instance, from starting.
        log.exception("%s did not start", instance["connectionName"])


def finish_operations(region: Region, instance: Resource, kind: str) -> None:
    """Tell the client that still polls: its operation is done, though the process that began it is gone."""
    now = timestamp(region.clock.now())
    for found in region.store.list(f"sqladmin/projects/{instance['project']}", "operations"):
        is_this = found["targetId"] == instance["name"] and found["operationType"] == kind
        if is_this and found.get("_localgcp") == "running":
            done = {name: value for name, value in found.items() if name != "_localgcp"}
            region.store.put(found.key, done | {"status": "DONE", "endTime": now})


def remove_orphans(instances: Instances) -> None:
    """Directories of instances that the store no longer knows."""
    servers = instances.servers
    known = {servers.layout.home(found["connectionName"]) for found in instances.all()}
    for home in servers.layout.homes.glob("*~*~*"):
        if home not in known:
            log.warning("%s belongs to no instance: removing it", home)
            servers.remove_home(home)


async def watch(instances: Instances) -> None:
    while True:
        await asyncio.sleep(WATCH_INTERVAL.total_seconds())
        await instances.region.run_in_thread(instances.servers.revive)


# Instances


@service.method("instances.insert")
def insert_instance(call: Call) -> dict[str, Any]:
    instances = instances_of(call.region)
    body = without_nulls(call.body)
    project, name = call.params["project"], str(body.get("name", ""))
    location = body.get("region") or DEFAULT_LOCATION
    check_identity(project, name)
    connection_name = f"{project}:{location}:{name}"
    instances.servers.check_name(connection_name)
    version = body.get("databaseVersion", "")
    known = instances.servers.known_settings(major_version(version))
    if body.get("instanceType", "CLOUD_SQL_INSTANCE") != "CLOUD_SQL_INSTANCE" or "masterInstanceName" in body:
        raise invalid("localgcp has primary instances only, no replicas.")
    settings = with_defaults(body.get("settings", {}), version, location)
    settings["settingsVersion"] = "1"
    check_settings(settings, known)
    password = body.pop("rootPassword", None)
    if password is not None:
        check_password(password, "postgres", settings.get("passwordValidationPolicy", {}))
    key = f"sqladmin/projects/{project}/instances/{name}"
    if call.store.exists(key):
        raise instance_exists()

    def create() -> None:
        with instances.alone(key), start_failures_told():
            try:
                finish_creation(instances, key)
            except Exception:
                # Nothing half made stays behind: the name is free for the next attempt.
                instances.servers.delete(spec_of(call.store.get(key)))
                call.store.delete(key)
                raise

    with instances.claimed(key) as claim, instances.choosing:
        taken = {found["ipAddresses"][0]["ipAddress"] for found in instances.all()}
        address = choose_address(f"{call.region.settings.data_dir}/{connection_name}", taken)
        instance = {
            **body,
            "kind": "sql#instance",
            "name": name,
            "project": project,
            "region": location,
            "databaseVersion": version,
            "settings": settings,
            "state": "PENDING_CREATE",
            "backendType": "SECOND_GEN",
            "instanceType": "CLOUD_SQL_INSTANCE",
            "connectionName": connection_name,
            "selfLink": f"{LINK}/projects/{project}/instances/{name}",
            "createTime": timestamp(call.region.clock.now()),
            "gceZone": settings["locationPreference"]["zone"],
            "ipAddresses": ip_addresses(settings, address),
            "serviceAccountEmailAddress": service_account(call.region, project, name),
        }
        if password is not None:
            # A verifier, so that a creation that is finished after a crash has it, and the disk not the password.
            instance["_localgcp"] = {"rootVerifier": admin.scram_verifier(password)}
        try:
            call.store.create(key, instance)
        except AlreadyExists:
            raise instance_exists() from None
        work = claim.until_done(create)
    return call.operation(work, target=key, kind="CREATE")


def instance_exists() -> AlreadyExists:
    return AlreadyExists("The Cloud SQL instance already exists.", reason="instanceAlreadyExists")


def finish_creation(instances: Instances, key: str) -> None:
    store = instances.region.store
    instance = store.get(key)
    spec = spec_of(instance)
    kept = instance.pop("_localgcp", {})
    instances.servers.provision(spec, kept.get("rootVerifier"))
    if instance["settings"]["activationPolicy"] == "NEVER":
        instances.servers.stop(spec)
    version = instances.servers.version(spec.major)
    instance |= {
        "state": "RUNNABLE",
        "databaseInstalledVersion": f"POSTGRES_{version.replace('.', '_')}",
        "serverCaCert": ssl_cert(instances.servers.authority(spec).certificate, instance["name"]),
    }
    store.put(key, with_etag(instance))


@service.method("instances.get")
def get_instance(call: Call) -> Resource:
    return existing(call)


@service.method("instances.list")
def list_instances(call: Call) -> dict[str, Any]:
    found = call.store.list(f"sqladmin/projects/{call.params['project']}", "instances")
    shown = [Resource(one.key, {k: v for k, v in one.items() if k != "_localgcp"}) for one in found]
    return {"kind": "sql#instancesList", **page(call, shown)}


@service.method("instances.patch", "instances.update")
def update_instance(call: Call) -> dict[str, Any]:
    instances = instances_of(call.region)
    key = instance_key(call)
    existing(call)
    body = without_nulls(call.body)
    password = body.get("rootPassword")

    def apply() -> None:
        with instances.alone(key), start_failures_told():
            try:
                reconfigure(instances, before, after)
            except Exception:
                call.store.put(key, before)
                raise
            if password is not None:
                with administrator(call, after) as connection:
                    admin.create_user(connection, "postgres", "BUILT_IN", password, None)

    with instances.claimed(key) as claim, instances.alone(key):
        before = existing(call)
        check_versions(before, body)
        for name in ("name", "region", "project", "databaseVersion"):
            if body.get(name, before[name]) != before[name]:
                raise invalid(f"{name} of an instance cannot be changed: it is {before[name]}, asked {body[name]}.")
        settings = changed_settings(before, call.body.get("settings") or {}, is_patch=call.method.verb == "patch")
        known = instances.servers.known_settings(major_version(before["databaseVersion"]))
        check_settings(settings, known)
        check_change(before["settings"], settings)
        if password is not None:
            check_password(password, "postgres", settings.get("passwordValidationPolicy", {}))
            if settings["activationPolicy"] == "NEVER":
                raise not_running()
        settings["settingsVersion"] = str(int(before["settings"]["settingsVersion"]) + 1)
        address = before["ipAddresses"][0]["ipAddress"]
        changed = {
            **before,
            **{name: body[name] for name in ("maintenanceVersion",) if name in body},
            "settings": settings,
            "gceZone": settings["locationPreference"]["zone"],
            "ipAddresses": ip_addresses(settings, address),
        }
        after = call.store.put(key, with_etag(changed))
        work = claim.until_done(apply)
    return call.operation(work, target=key, kind="UPDATE")


def reconfigure(instances: Instances, before: Resource, after: Resource) -> None:
    servers, old, new = instances.servers, spec_of(before), spec_of(after)
    if after["settings"]["activationPolicy"] == "NEVER":
        servers.stop(new)
    elif not servers.is_running(new.connection_name):
        servers.start(new)
    elif old != new:
        known = servers.known_settings(new.major)
        # A flag that is taken back leaves Postgres' default, which a reload applies as well.
        restart = needs_restart(old.flags, new.flags, known) or old.max_connections != new.max_connections
        restart = restart or old.flags.get("cloudsql.logical_decoding") != new.flags.get("cloudsql.logical_decoding")
        servers.apply(new, restart=restart)


@service.method("instances.delete")
def delete_instance(call: Call) -> dict[str, Any]:
    instances = instances_of(call.region)
    key = instance_key(call)
    existing(call)

    def delete() -> None:
        with instances.alone(key):
            instances.servers.delete(spec_of(instance))
            if call.store.exists(key):
                call.store.delete(key)

    with instances.claimed(key) as claim, instances.alone(key):
        instance = existing(call)
        if instance["settings"].get("deletionProtectionEnabled"):
            raise InvalidArgument(
                "The instance is protected. Please disable the deletion protection and try again. To disable deletion "
                "protection, update the instance settings with deletionProtectionEnabled set to false.",
                reason="invalid",
            )
        call.store.put(key, {**instance, "state": "PENDING_DELETE"})
        work = claim.until_done(delete)
    return call.operation(work, target=key, kind="DELETE")


@service.method("instances.restart", "instances.failover")
def restart_instance(call: Call) -> dict[str, Any]:
    instances = instances_of(call.region)
    key = instance_key(call)
    is_failover = call.method.verb == "failover"
    existing(call)

    def restart() -> None:
        with instances.alone(key):
            instances.servers.apply(spec_of(instance), restart=True)

    with instances.claimed(key) as claim:
        instance = running(call)
        if is_failover:
            if instance["settings"]["availabilityType"] != "REGIONAL":
                raise invalid("Failover needs an instance with high availability: availabilityType REGIONAL.")
            given = call.body.get("failoverContext", {}).get("settingsVersion")
            check_versions(instance, {"settings": {"settingsVersion": given}} if given else {})
        work = claim.until_done(restart)
    return call.operation(work, target=key, kind="FAILOVER" if is_failover else "RESTART")


@service.method(*NOT_HERE)
def refuse(call: Call) -> dict[str, Any]:
    raise Unimplemented(
        f"sqladmin.{call.method.id} is not available in localgcp: there are no backups, clones, replicas, "
        "point-in-time recovery, imports, exports or rotation of certificates here, and of client certificates only "
        "ephemeral ones."
    )


# Databases


@service.method("databases.insert")
def insert_database(call: Call) -> dict[str, Any]:
    instance = running(call)
    name, charset, collation = call.body.get("name", ""), call.body.get("charset"), call.body.get("collation")
    key = f"{instance.key}/databases/{name}"

    # What was asked for, beside what Postgres knows: this machine may lack the locale.
    asked = {"charset": charset, "collation": collation}

    def create() -> None:
        with administrator(call, instance) as connection:
            before: Mapping[str, Any] = call.store.find(key) or {}
            exists = any(database.name == name for database in admin.list_databases(connection))
            # Begun by a process that died before it could say so: the client asks again, and it is done.
            if not (exists and before.get("isBegun")):
                if not exists:
                    call.store.put(key, asked | {"isBegun": True})
                admin.create_database(connection, name, charset, collation)
            with call.store.transaction():
                call.store.delete(key)
                # Created, not put: a request that comes a second time is recognised by its id.
                call.store.create(key, asked)

    return changed(call, create, "CREATE_DATABASE", key)


@service.method("databases.get")
def get_database(call: Call) -> dict[str, Any]:
    wanted = call.params["database"]
    for database in databases(call):
        if database["name"] == wanted:
            return database
    raise NotFound(f"Not Found: database {wanted} does not exist.")


@service.method("databases.list")
def list_databases(call: Call) -> dict[str, Any]:
    return {"kind": "sql#databasesList", "items": databases(call)}


@service.method("databases.patch", "databases.update")
def update_database(call: Call) -> dict[str, Any]:
    """Postgres cannot change the encoding or the order of a database: only the same values are accepted."""
    found = get_database(call)
    for name in ("charset", "collation", "name"):
        if call.body.get(name, found[name]) != found[name]:
            raise invalid(f"{name} of a PostgreSQL database cannot be changed: it is {found[name]}.")
    return call.operation(target=f"{instance_key(call)}/databases/{found['name']}", kind="UPDATE_DATABASE")


@service.method("databases.delete")
def delete_database(call: Call) -> dict[str, Any]:
    instance = running(call)
    key = f"{instance.key}/databases/{call.params['database']}"

    def delete() -> None:
        with administrator(call, instance) as connection:
            admin.delete_database(connection, call.params["database"])
        if call.store.exists(key):
            call.store.delete(key)

    return changed(call, delete, "DELETE_DATABASE", key)


def databases(call: Call) -> list[dict[str, Any]]:
    instance = running(call)
    with administrator(call, instance) as connection:
        found = admin.list_databases(connection)
    result = []
    for database in found:
        asked: Mapping[str, Any] = call.store.find(f"{instance.key}/databases/{database.name}") or {}
        body = {
            "kind": "sql#database",
            "charset": asked.get("charset") or database.charset,
            "collation": asked.get("collation") or database.collation,
            "name": database.name,
            "instance": instance["name"],
            "project": instance["project"],
            "selfLink": f"{instance['selfLink']}/databases/{database.name}",
        }
        result.append(with_etag(body))
    return result


# Users


@service.method("users.insert")
def insert_user(call: Call) -> dict[str, Any]:
    instance = running(call)
    type_ = user_type(call.body.get("type") or "BUILT_IN")
    name, password = database_user(call.body.get("name", ""), type_), call.body.get("password")
    if type_ != "BUILT_IN" and password:
        raise invalid(f"IAM user {name} cannot have a password.")
    if password is not None:
        check_password(password, name, instance["settings"].get("passwordValidationPolicy", {}))
    roles = call.body.get("databaseRoles")

    def create() -> None:
        with administrator(call, instance) as connection:
            admin.create_user(connection, name, type_, password, roles)
        keep_policy(call, instance, name)

    return changed(call, create, "CREATE_USER", instance.key)


@service.method("users.update")
def update_user(call: Call) -> dict[str, Any]:
    instance = running(call)
    name = call.query.get("name") or call.body.get("name", "")
    password = call.body.get("password")
    if password is not None:
        check_password(password, name, instance["settings"].get("passwordValidationPolicy", {}))
    roles = [*(call.query.get("databaseRoles") or []), *(call.body.get("databaseRoles") or [])]
    revoke = bool(call.query.get("revokeExistingRoles"))

    def update() -> None:
        with administrator(call, instance) as connection:
            admin.update_user(connection, name, password, roles, revoke_existing=revoke)
        keep_policy(call, instance, name)

    return changed(call, update, "UPDATE_USER", instance.key)


@service.method("users.delete")
def delete_user(call: Call) -> dict[str, Any]:
    instance = running(call)
    name = call.query.get("name", "")

    def delete() -> None:
        with administrator(call, instance) as connection:
            admin.delete_user(connection, name)
        if call.store.exists(user_key(instance, name)):
            call.store.delete(user_key(instance, name))

    return changed(call, delete, "DELETE_USER", instance.key)


@service.method("users.get")
def get_user(call: Call) -> dict[str, Any]:
    wanted = call.params["name"]
    for user in users(call):
        if user["name"] == wanted:
            return user
    raise NotFound(f"User {wanted} does not exist.")


@service.method("users.list")
def list_users(call: Call) -> dict[str, Any]:
    return {"kind": "sql#usersList", "items": users(call)}


def users(call: Call) -> list[dict[str, Any]]:
    instance = running(call)
    with administrator(call, instance) as connection:
        found = admin.list_users(connection)
    result = []
    for user in found:
        body: dict[str, Any] = {
            "kind": "sql#user",
            "name": user.name,
            "host": "",
            "instance": instance["name"],
            "project": instance["project"],
        }
        if user.type != "BUILT_IN":
            body["type"] = user.type
        # The role that every built-in user has is not news.
        if user.roles and (user.type != "BUILT_IN" or user.roles != (SUPERUSER,)):
            body["databaseRoles"] = list(user.roles)
        body |= call.store.find(user_key(instance, user.name)) or {}
        result.append(with_etag(body))
    return result


def user_key(instance: Resource, name: str) -> str:
    """Where is kept what Postgres does not keep of a user."""
    return f"{instance.key}/users/{name}"


def keep_policy(call: Call, instance: Resource, name: str) -> None:
    policy = without_nulls(call.body.get("passwordPolicy"))
    if policy is not None:
        call.store.put(user_key(instance, name), {"passwordPolicy": policy})


def user_type(name: str) -> admin.UserType:
    for known in get_args(admin.UserType):
        if name == known:
            return cast(admin.UserType, known)
    raise invalid(f"user type {name} is not available here: choose one of {', '.join(get_args(admin.UserType))}.")


def database_user(name: str, type_: admin.UserType) -> str:
    """An account's name in Postgres: without the domain that all service accounts share, and in lower case."""
    if type_ == "CLOUD_IAM_SERVICE_ACCOUNT":
        name = name.lower().removesuffix(".gserviceaccount.com")
        if not name.endswith(".iam") or "@" not in name:
            raise invalid(f"{name} is no service account: expected <account>@<project>.iam.")
    elif type_ == "CLOUD_IAM_USER":
        name = name.lower()
        if "@" not in name:
            raise invalid(f"{name} is no account: expected an email address.")
    return name


# Connectors


@service.method("connect.get")
def connect_settings(call: Call) -> dict[str, Any]:
    instance = existing(call)
    same = ("backendType", "connectionName", "databaseVersion", "ipAddresses", "region", "serverCaCert")
    return {
        "kind": "sql#connectSettings",
        "serverCaMode": instance["settings"]["ipConfiguration"]["serverCaMode"],
        "pscEnabled": False,
        **{name: instance[name] for name in same if name in instance},
    }


@service.method("instances.listServerCas")
def list_server_certificate_authorities(call: Call) -> dict[str, Any]:
    instance = existing(call)
    certificates = [instance["serverCaCert"]] if "serverCaCert" in instance else []
    answer: dict[str, Any] = {"kind": "sql#instancesListServerCas", "certs": certificates}
    return answer | ({"activeVersion": certificates[0]["sha1Fingerprint"]} if certificates else {})


@service.method("connect.generateEphemeral")
def generate_ephemeral_certificate(call: Call) -> dict[str, Any]:
    return {"ephemeralCert": ephemeral_certificate(call)}


@service.method("sslCerts.createEphemeral")
def create_ephemeral_certificate(call: Call) -> dict[str, str]:
    return ephemeral_certificate(call)


def ephemeral_certificate(call: Call) -> dict[str, str]:
    """Signed for the client's key. A token in the request is sealed into the certificate, and kept nowhere."""
    call.check("cloudsql.instances.connect", instance_key(call))
    instance = running(call)
    asked = call.body.get("validDuration", "")
    lifetime = EPHEMERAL_LIFETIME
    if asked:
        lifetime = timedelta(seconds=min(lifetime.total_seconds(), seconds(asked)))
    authority = instances_of(call.region).servers.authority(spec_of(instance))
    certificate = authority.sign_client(call.body.get("public_key", ""), call.body.get("access_token"), lifetime)
    return ssl_cert(certificate, instance["name"])


# Operations and tables


@service.method("operations.list")
def list_operations(call: Call) -> dict[str, Any]:
    """The newest first, of one instance when the query names it."""
    found = reversed(call.store.list(f"sqladmin/projects/{call.params['project']}", "operations"))
    wanted = call.query.get("instance")
    shown = [
        Resource(one.key, {name: value for name, value in one.items() if name != "_localgcp"})
        for one in found
        if wanted in (None, "", one["targetId"])
    ]
    return {"kind": "sql#operationsList", **page(call, shown)}


@service.method("flags.list")
def list_flags(call: Call) -> dict[str, Any]:
    version = call.query.get("databaseVersion") or "POSTGRES_18"
    known = instances_of(call.region).servers.known_settings(major_version(version))
    rows = [Setting(name=name, context="postmaster", vartype=kind) for name, kind in CLOUD_SQL_FLAGS.items()]
    rows += [setting for setting in known.values() if not is_reserved(setting)]
    items = [flag_of(setting, version) for setting in sorted(rows, key=lambda setting: setting.name.lower())]
    return {"kind": "sql#flagsList", "items": items}


def flag_of(setting: Setting, version: str) -> dict[str, Any]:
    kinds = {"bool": "BOOLEAN", "integer": "INTEGER", "real": "FLOAT", "enum": "STRING", "string": "STRING"}
    flag: dict[str, Any] = {
        "kind": "sql#flag",
        "name": setting.name.lower(),
        "type": kinds[setting.vartype],
        "appliesTo": [version],
        "requiresRestart": setting.context == "postmaster",
    }
    if setting.vartype == "integer" and setting.minimum is not None and setting.maximum is not None:
        flag |= {"minValue": str(int(setting.minimum)), "maxValue": str(int(setting.maximum))}
    return flag | ({"allowedStringValues": list(setting.choices)} if setting.choices else {})


@service.method("tiers.list")
def list_tiers(call: Call) -> dict[str, Any]:
    """The machines that have a name. Custom ones are made to measure, and so in no table."""
    items = [{"kind": "sql#tier", "tier": tier.name, "RAM": str(tier.memory_mib * 2**20)} for tier in named_tiers()]
    return {"kind": "sql#tiersList", "items": items}


# Shared


def instance_key(call: Call) -> str:
    return f"sqladmin/projects/{call.params['project']}/instances/{call.params['instance']}"


def existing(call: Call) -> Resource:
    found = call.store.find(instance_key(call))
    if found is None:
        raise NotFound("The Cloud SQL instance does not exist.", reason="instanceDoesNotExist")
    return found


def running(call: Call) -> Resource:
    """The instance, which must be there and awake: its databases and users are in it, and nowhere else."""
    instance = existing(call)
    if instance["state"] == "PENDING_CREATE":
        # A client that asked for the creation a second time can be here before the first is done.
        with instances_of(call.region).alone(instance.key):
            instance = existing(call)
    if instance["state"] != "RUNNABLE" or instance["settings"]["activationPolicy"] == "NEVER":
        raise not_running()
    return instance


def not_running() -> InvalidArgument:
    return invalid("Invalid request since instance is not running.")


@contextmanager
def administrator(call: Call, instance: Resource) -> Iterator[psycopg.Connection]:
    """A session in the instance. A restart that is under way is waited for."""
    instances = instances_of(call.region)
    with instances.alone(instance.key):
        try:
            connection = instances.servers.connect(instance["connectionName"])
        except psycopg.OperationalError:
            raise not_running() from None
        with connection:
            yield connection


@contextmanager
def start_failures_told() -> Iterator[None]:
    """What keeps Postgres from starting is nearly always a flag, and its log says which."""
    try:
        yield
    except ClusterError as error:
        raise invalid(str(error)) from error


def changed(call: Call, work: Callable[[], None], kind: str, target: str) -> dict[str, Any]:
    """Do `work` at once: it takes milliseconds, and Google refuses the request itself, not a later operation."""
    work()
    return call.operation(target=target, kind=kind)


def check_versions(current: Resource, body: dict[str, Any]) -> None:
    """Raises PreconditionFailed when the caller read other settings than the current ones."""
    given = body.get("settings", {}).get("settingsVersion")
    now = current["settings"]["settingsVersion"]
    if given and str(given) != now:
        raise PreconditionFailed(f"Condition does not match: settingsVersion is {now}, the request has {given}.")


def with_etag(body: dict[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in body.items() if name != "etag"}
    return content | {"etag": hashlib.sha256(fingerprint(content).encode()).hexdigest()}


def service_account(region: Region, project: str, name: str) -> str:
    """The account that an instance reads and writes buckets with; the suffix follows from its name."""
    suffix = int.from_bytes(hashlib.sha256(f"{project}/{name}".encode()).digest()[:4]) % 900_000 + 100_000
    return f"p{region.project_number(project)}-{suffix}@gcp-sa-cloud-sql.iam.gserviceaccount.com"
