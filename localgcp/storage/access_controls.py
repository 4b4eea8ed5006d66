"""Access control lists: what a bucket or an object grants by itself, beside IAM. An entry is an entity and its role.

A bucket's list is its IAM policy, seen another way: READER, WRITER and OWNER are bindings of the legacy bucket roles,
and what is granted one way shows the other way. An object's list is kept with the object; the list that new objects
start with is kept with the bucket. An object without one, as it is written under uniform access, has the bucket's.

Under uniform access nobody looks at the lists of objects, and they apply again when it is switched off. There are no
users or groups here whose existence could be checked, so their entries are taken as they are.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from localgcp.errors import InvalidArgument, PreconditionFailed
from localgcp.iam import accounts
from localgcp.iam.policies import Iam
from localgcp.iam.principal import OPERATOR_EMAIL, Principal
from localgcp.storage.buckets import is_uniform, prevents_public_access
from localgcp.storage.objects import StoredObject
from localgcp.store import Resource, Store

MAX_ENTRIES = 100  # "Access control lists" of Cloud Storage: entries of one list
PUBLIC = frozenset({"allUsers", "allAuthenticatedUsers"})
TEAMS = {"owners": "projectOwner", "editors": "projectEditor", "viewers": "projectViewer"}
KINDS_OF_ENTITY = {"user": "user", "serviceAccount": "user", "group": "group", "domain": "domain"}
UNIFORM = (
    "when uniform bucket-level access is enabled. Read more at"
    " https://cloud.google.com/storage/docs/uniform-bucket-level-access"
)

#: What a list holds: the strongest role of each entity.
Entries = Mapping[str, str]
NOTHING: Entries = {}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the three kinds of lists, and the IAM roles that its own roles stand for."""

    noun: str
    resource: str
    roles: Mapping[str, str]


BUCKET = Kind(
    noun="bucket",
    resource="storage#bucketAccessControl",
    roles={
        "READER": "roles/storage.legacyBucketReader",
        "WRITER": "roles/storage.legacyBucketWriter",
        "OWNER": "roles/storage.legacyBucketOwner",
    },
)
OBJECT = Kind(
    noun="object",
    resource="storage#objectAccessControl",
    roles={"READER": "roles/storage.legacyObjectReader", "OWNER": "roles/storage.legacyObjectOwner"},
)
#: The list that a bucket gives its new objects.
DEFAULT = Kind(noun="bucket", resource=OBJECT.resource, roles=OBJECT.roles)

_STRENGTH = ("READER", "WRITER", "OWNER")
_ROLE_OF = {iam_role: role for role, iam_role in BUCKET.roles.items()}


class AccessControls:
    def __init__(self, store: Store, iam: Iam) -> None:
        self._store = store
        self._iam = iam

    # What is in force

    def of_bucket(self, bucket: Resource) -> Entries:
        found: dict[str, str] = {}
        # A reader of version 1 sees conditional bindings under roles of other names.
        for binding in self._iam.get_policy(bucket.key, requested_version=1).get("bindings", ()):
            role = _ROLE_OF.get(binding["role"])
            for member in binding["members"]:
                entity = self._entity(member)
                if role and entity:
                    found[entity] = max(role, found.get(entity, role), key=_STRENGTH.index)
        return found

    def default_of(self, bucket: Mapping[str, Any]) -> Entries:
        kept: Entries | None = bucket.get("defaultObjectAcl")
        return self._predefined("projectPrivate", bucket) if kept is None else kept

    def of_object(self, bucket: Mapping[str, Any], found: StoredObject) -> Entries:
        kept: Entries | None = found.properties.get("acl")
        return self.default_of(bucket) if kept is None else kept

    def allows(self, principal: Principal, permission: str, bucket: Mapping[str, Any], found: StoredObject) -> bool:
        """Whether the object's list grants the permission, in a bucket whose access is not uniform."""
        for entity, role in self.of_object(bucket, found).items():
            if entity in PUBLIC and prevents_public_access(bucket):
                continue
            granted = self._iam.roles.find(OBJECT.roles[role])
            if granted and granted.includes(permission) and self._iam.is_member(principal, self._member(entity)):
                return True
        return False

    # What is asked for

    def asked(
        self,
        kind: Kind,
        bucket: Mapping[str, Any],
        given: Iterable[Mapping[str, Any]] | None,
        predefined: str | None = None,
        *,
        owner: str | None = None,
        known: Entries = NOTHING,
    ) -> Entries:
        """The list that a request describes; a predefined one wins. Owners stay owners, whatever they are given.

        Accounts must exist, but for those that are `known` from before.

        Raises InvalidArgument, and PreconditionFailed for the public where public access is prevented.
        """
        if kind is BUCKET:
            owner = f"project-owners-{bucket['projectNumber']}"
        entries: dict[str, str] = {}
        if predefined:
            entries |= self._predefined(predefined, bucket)
        else:
            for each in given or ():
                entity, role = self.entity(each.get("entity")), self._role(kind, each.get("role"))
                if entity != owner and entity not in known:
                    self._check_account(entity)
                entries[entity] = max(role, entries.get(entity, role), key=_STRENGTH.index)
        if unknown := sorted(set(entries.values()) - set(kind.roles)):
            raise InvalidArgument(f"Invalid role: '{unknown[0]}'", reason="invalid")
        if owner is not None:
            entries[owner] = "OWNER"
        if len(entries) > MAX_ENTRIES:
            raise InvalidArgument(f"An access control list has at most {MAX_ENTRIES} entries.", reason="invalid")
        if PUBLIC & entries.keys() and prevents_public_access(bucket):
            raise PreconditionFailed(
                "The member bindings allUsers and allAuthenticatedUsers are not allowed since public access prevention"
                " is enforced."
            )
        return entries

    def of_new_object(
        self,
        bucket: Mapping[str, Any],
        principal: Principal,
        given: Iterable[Mapping[str, Any]] | None,
        predefined: str | None,
    ) -> Mapping[str, Any]:
        """The properties `acl` and `owner` of an object that the caller writes; none under uniform access."""
        if is_uniform(bucket):
            if given or predefined:
                raise InvalidArgument(f"Cannot insert legacy ACL for an object {UNIFORM}", reason="invalid")
            return {}
        owner = None if principal.email is None else f"user-{principal.email}"
        entries = self.default_of(bucket)
        if given or predefined:
            entries = self.asked(OBJECT, bucket, given, predefined, owner=owner)
        if owner is None:
            return {"acl": entries}
        return {"acl": {**entries, owner: "OWNER"}, "owner": owner}

    def entity(self, given: Any) -> str:
        """An entity as lists name it. Raises InvalidArgument for one that names nobody."""
        if not given:
            raise InvalidArgument("Required", reason="required", location="entity")
        text = str(given)
        if text in PUBLIC:
            return text
        if match := re.fullmatch(r"project-(owners|editors|viewers)-([a-z0-9:.-]+)", text):
            number = self._iam.names.project_number(match[2])
            if number.isdigit():
                return f"project-{match[1]}-{number}"
        elif re.fullmatch(r"(user|group)-[^@\s]+@[^@\s]+\.[^@\s]+|domain-[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", text):
            return text.lower()
        raise InvalidArgument(f"Could not parse entity: '{text}'", reason="invalid", location="entity")

    def set_bucket(self, bucket: Resource, entries: Entries) -> None:
        """Make these the bucket's list. What else its policy grants stays."""
        with self._store.transaction():
            policy = self._iam.get_policy(bucket.key, requested_version=3)
            bindings: list[dict[str, Any]] = []
            for binding in policy.get("bindings", ()):
                if binding["role"] in _ROLE_OF and "condition" not in binding:
                    # Members that no list can name are not for lists to remove.
                    binding["members"] = [member for member in binding["members"] if self._entity(member) is None]
                bindings.append(binding)
            bindings += [
                {"role": BUCKET.roles[role], "members": [self._member(entity)]} for entity, role in entries.items()
            ]
            self._iam.set_policy(bucket.key, {**policy, "bindings": bindings})

    # Answers

    def bucket_fields(self, bucket: Resource) -> dict[str, Any]:
        """What projection=full adds to a bucket."""
        if is_uniform(bucket):
            return {}
        return {
            "acl": self.resources(BUCKET, bucket, self.of_bucket(bucket)),
            "defaultObjectAcl": self.resources(DEFAULT, bucket, self.default_of(bucket)),
            "owner": {"entity": f"project-owners-{bucket['projectNumber']}"},
        }

    def object_fields(self, bucket: Mapping[str, Any], found: StoredObject) -> dict[str, Any]:
        """What projection=full adds to an object."""
        if is_uniform(bucket):
            return {}
        owner = found.properties.get("owner")
        fields = {"acl": self.resources(OBJECT, bucket, self.of_object(bucket, found), found)}
        return fields | ({"owner": {"entity": owner}} if owner else {})

    def resources(
        self, kind: Kind, bucket: Mapping[str, Any], entries: Entries, found: StoredObject | None = None
    ) -> list[dict[str, Any]]:
        return [self.resource(kind, bucket, entity, role, found) for entity, role in entries.items()]

    def resource(
        self, kind: Kind, bucket: Mapping[str, Any], entity: str, role: str, found: StoredObject | None = None
    ) -> dict[str, Any]:
        """An entry as Google answers it: of the default list it has no address of its own."""
        body: dict[str, Any] = {"kind": kind.resource, "entity": entity, "role": role}
        body["etag"] = bucket["etag"] if found is None else found.etag
        name, links = str(bucket["name"]), "https://www.googleapis.com/storage/v1/b"
        if found is not None:
            body |= {
                "id": f"{name}/{found.name}/{found.generation}/{entity}",
                "selfLink": f"{links}/{name}/o/{quote(found.name, safe='')}/acl/{entity}",
                "bucket": name,
                "object": found.name,
                "generation": str(found.generation),
            }
        elif kind is BUCKET:
            body |= {"id": f"{name}/{entity}", "selfLink": f"{links}/{name}/acl/{entity}", "bucket": name}
        family, _, rest = entity.partition("-")
        match family:
            case "user" | "group":
                body["email"] = rest
            case "domain":
                body["domain"] = rest
            case "project":
                team, _, number = rest.partition("-")
                body["projectTeam"] = {"projectNumber": number, "team": team}
        return body

    # Names

    def _predefined(self, name: str, bucket: Mapping[str, Any]) -> Entries:
        """A predefined list without the entry of the owner. Raises InvalidArgument."""
        owners, editors, viewers = (f"project-{team}-{bucket['projectNumber']}" for team in TEAMS)
        match name:
            case "private":
                return {}
            case "projectPrivate":
                return {owners: "OWNER", editors: "OWNER", viewers: "READER"}
            case "publicRead":
                return {"allUsers": "READER"}
            case "publicReadWrite":
                return {"allUsers": "WRITER"}
            case "authenticatedRead":
                return {"allAuthenticatedUsers": "READER"}
            case "bucketOwnerRead":
                return {owners: "READER"}
            case "bucketOwnerFullControl":
                return {owners: "OWNER"}
        raise InvalidArgument(f"Invalid predefined ACL: '{name}'", reason="invalid")

    def _role(self, kind: Kind, given: Any) -> str:
        if not given:
            raise InvalidArgument("Required", reason="required", location="role")
        if str(given).upper() not in kind.roles:
            raise InvalidArgument(f"Invalid role: '{given}'", reason="invalid", location="role")
        return str(given).upper()

    def _check_account(self, entity: str) -> None:
        email = entity.removeprefix("user-")
        is_account = entity.startswith("user-") and email.endswith("gserviceaccount.com") and email != OPERATOR_EMAIL
        if is_account and not accounts.exists(self._store, email):
            raise InvalidArgument(f"Unknown user email address: {email}", reason="invalid")

    def _member(self, entity: str) -> str:
        """An entity as policies name it."""
        if entity in PUBLIC:
            return entity
        family, _, rest = entity.partition("-")
        match family:
            case "user":
                return Principal(email=rest).member
            case "project":
                team, _, number = rest.partition("-")
                return f"{TEAMS[team]}:{self._iam.names.project_id(number)}"
        return f"{family}:{rest}"

    def _entity(self, member: str) -> str | None:
        """A member of a policy as lists name it, None for one that they cannot name."""
        if member in PUBLIC:
            return member
        kind, _, rest = member.partition(":")
        for team, convenience in TEAMS.items():
            if kind == convenience:
                return f"project-{team}-{self._iam.names.project_number(rest)}"
        return f"{KINDS_OF_ENTITY[kind]}-{rest}" if kind in KINDS_OF_ENTITY else None


def predefined_of_header(header: str | None) -> str | None:
    """The predefined list that the XML API names with hyphens: `public-read` is `publicRead`."""
    first, *others = (header or "").split("-")
    return first + "".join(word.capitalize() for word in others) or None
