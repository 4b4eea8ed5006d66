"""Databases and users of an instance, read from and written to Postgres itself: there is no second book to keep."""

import base64
import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import errors, sql

from localgcp.errors import AlreadyExists, InvalidArgument, NotFound
from localgcp.sql.template import ADMIN, IAM_SERVICE_ACCOUNT, IAM_USER, SUPERUSER, system_locale

UserType = Literal["BUILT_IN", "CLOUD_IAM_USER", "CLOUD_IAM_SERVICE_ACCOUNT"]
GROUP_BY_TYPE: dict[UserType, str] = {"CLOUD_IAM_USER": IAM_USER, "CLOUD_IAM_SERVICE_ACCOUNT": IAM_SERVICE_ACCOUNT}
SYSTEM_DATABASES = (ADMIN, "template0", "template1")
DEFAULT_COLLATION = "en_US.UTF8"
LOCALE = re.compile(r"[a-z]{2,3}_[A-Z]{2}(\.[A-Za-z0-9-]+)?(@\w+)?")
MAX_NAME_BYTES = 63
SCRAM_ITERATIONS = 4096


@dataclass(frozen=True, kw_only=True)
class User:
    name: str
    type: UserType
    #: Roles besides the one that makes an IAM user.
    roles: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Database:
    name: str
    charset: str
    collation: str


def list_users(connection: psycopg.Connection) -> list[User]:
    rows = connection.execute(
        """
        SELECT u.rolname, array_remove(array_agg(g.rolname::text ORDER BY g.rolname), NULL)
        FROM pg_roles u
        LEFT JOIN pg_auth_members m ON m.member = u.oid
        LEFT JOIN pg_roles g ON g.oid = m.roleid
        WHERE u.rolcanlogin AND u.rolname !~ '^(cloudsql|pg_)'
        GROUP BY u.oid, u.rolname ORDER BY u.oid
        """
    ).fetchall()
    users = []
    for name, roles in rows:
        kind: UserType = "BUILT_IN"
        for type_, group in GROUP_BY_TYPE.items():
            if group in roles:
                kind = type_
        users.append(User(name=name, type=kind, roles=tuple(r for r in roles if r not in GROUP_BY_TYPE.values())))
    return users


def find_user(connection: psycopg.Connection, name: str) -> User | None:
    return next((user for user in list_users(connection) if user.name == name), None)


def create_user(
    connection: psycopg.Connection, name: str, type_: UserType, password: str | None, roles: Sequence[str] | None
) -> None:
    """Create the user, or bring one of the same type to what is asked: a request that is sent twice does no harm.

    Without `roles`, a built-in user gets what `postgres` has and an IAM user gets nothing.
    """
    check_user_name(name)
    existing = find_user(connection, name)
    if existing is not None and existing.type != type_:
        raise AlreadyExists(f"User {name} already exists and is of type {existing.type}.")
    user = sql.Identifier(name)
    if type_ == "BUILT_IN" and roles is None:
        roles = (SUPERUSER,)
    check_roles(connection, roles or ())
    with connection.transaction():
        if existing is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(user))
        if type_ == "BUILT_IN":
            if SUPERUSER in (roles or ()):
                connection.execute(sql.SQL("ALTER ROLE {} CREATEDB CREATEROLE").format(user))
            if password is not None:
                set_password(connection, name, scram_verifier(password))
        else:
            grant(connection, GROUP_BY_TYPE[type_], name)
        for role in roles or ():
            grant(connection, role, name)


def update_user(
    connection: psycopg.Connection, name: str, password: str | None, roles: Sequence[str], *, revoke_existing: bool
) -> None:
    user = find_user(connection, name)
    if user is None:
        raise NotFound(f"User {name} does not exist.")
    if password is not None and user.type != "BUILT_IN":
        raise InvalidArgument(f"Invalid request: password of IAM user {name} cannot be changed.", reason="invalid")
    check_roles(connection, roles)
    with connection.transaction():
        if password is not None:
            set_password(connection, name, scram_verifier(password))
        if revoke_existing:
            for role in user.roles:
                statement = sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(role), sql.Identifier(name))
                connection.execute(statement)
        for role in roles:
            grant(connection, role, name)


def delete_user(connection: psycopg.Connection, name: str) -> None:
    """Refused, as Google does, while the user owns anything in any database."""
    if find_user(connection, name) is None:
        raise NotFound(f"User {name} does not exist.")
    try:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    except errors.DependentObjectsStillExist as error:
        raise InvalidArgument(
            f"Invalid request: failed to delete user {name}: . {error.diag.message_primary} "
            f"Details: {error.diag.message_detail}.",
            reason="invalid",
        ) from None


def grant(connection: psycopg.Connection, role: str, user: str) -> None:
    # `postgres` and its peers may pass cloudsqlsuperuser on, which PostgreSQL 16 no longer grants to every CREATEROLE.
    option = sql.SQL(" WITH ADMIN OPTION") if role == SUPERUSER else sql.SQL("")
    try:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(user)) + option)
    except errors.InvalidGrantOperation as error:
        # In a circle: a user as a role of its own, for one.
        raise InvalidArgument(f"Invalid request: {error.diag.message_primary}.", reason="invalid") from None


def set_password(connection: psycopg.Connection, name: str, verifier: str) -> None:
    # The verifier, not the password: statements end up in logs.
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(verifier))
    connection.execute(statement)


def check_user_name(name: str) -> None:
    if not name or "\0" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(
            f"Invalid request: user name must have 1 to {MAX_NAME_BYTES} bytes, got {len(name.encode())}.",
            reason="invalid",
        )
    if name.startswith(("cloudsql", "pg_")):
        raise InvalidArgument(f"Invalid request: user name {name} is reserved.", reason="invalid")


def check_roles(connection: psycopg.Connection, roles: Sequence[str]) -> None:
    known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    for role in roles:
        if role not in known or role == ADMIN or role in GROUP_BY_TYPE.values():
            raise InvalidArgument(f'Invalid request: role "{role}" does not exist.', reason="invalid")


def list_databases(connection: psycopg.Connection) -> list[Database]:
    columns = "datname, pg_encoding_to_char(encoding), datcollate"
    rows = connection.execute(
        f"SELECT {columns} FROM pg_database WHERE datname <> ALL (%s) ORDER BY oid",  # noqa: S608 (constants)
        [list(SYSTEM_DATABASES)],
    )
    return [
        Database(name=name, charset=charset, collation=DEFAULT_COLLATION if collation == "C.UTF-8" else collation)
        for name, charset, collation in rows
    ]


def create_database(connection: psycopg.Connection, name: str, charset: str | None, collation: str | None) -> None:
    """Owned by cloudsqlsuperuser, as every database that the API creates."""
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(
            f"Invalid request: database name must have 1 to {MAX_NAME_BYTES} bytes.", reason="invalid"
        )
    statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(SUPERUSER))
    if charset or collation:
        statement += sql.SQL(" TEMPLATE template0 ENCODING {}").format(sql.Literal(charset or "UTF8"))
        locale = locale_for(name, collation) if collation else None
        if locale is not None:
            statement += sql.SQL(" LC_COLLATE {0} LC_CTYPE {0}").format(sql.Literal(locale))
            if connection.info.server_version >= 150000:
                statement += sql.SQL(" LOCALE_PROVIDER libc")
    try:
        connection.execute(statement)
    except psycopg.Error as error:
        raise failed("create", name, error) from None


def locale_for(name: str, collation: str) -> str | None:
    """The machine's locale for a collation; None where it has none and the instance's own order must do.

    Containers and small machines rarely have more than C.UTF-8, and Cloud SQL has them all: refusing what works there
    would be the greater lie. The answer of the API keeps the collation that was asked for.
    """
    if collation in ("C", "POSIX"):
        return collation
    found = system_locale(collation)
    if found is None and not (LOCALE.fullmatch(collation) or collation.upper().startswith("C.UTF")):
        raise InvalidArgument(
            f"Invalid request: failed to create database {name}. "
            f'Detail: pq: invalid LC_COLLATE locale name: "{collation}".',
            reason="invalid",
        )
    return found


def delete_database(connection: psycopg.Connection, name: str) -> None:
    if name in SYSTEM_DATABASES or all(database.name != name for database in list_databases(connection)):
        raise NotFound(f"Not Found: database {name} does not exist.")
    try:
        # Postgres itself waits five seconds for sessions that are about to end.
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise failed("delete", name, error) from None


def failed(verb: str, database: str, error: psycopg.Error) -> InvalidArgument:
    shown = database if verb == "create" else f'"{database}"'
    return InvalidArgument(
        f"Invalid request: failed to {verb} database {shown}. Detail: pq: {error.diag.message_primary}.",
        reason="invalid",
    )


def scram_verifier(password: str) -> str:
    """What Postgres keeps of a password (RFC 5803), so that the password itself is neither sent nor stored."""
    salt = secrets.token_bytes(16)
    prepared = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(value).decode() for value in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
