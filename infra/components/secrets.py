"""Secrets: generated here, kept in Secret Manager in the region, read by version number.

What others issue (the Sentry DSN, the Modal token) is not here: a value that the program does not generate comes from
the operator, into a version that the operator adds.
"""

import base64
import textwrap
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from infra.components.component import Component

# Callbacks are signed with the first and accepted with each. To rotate, put a new id in front; take the old one out
# when nothing that was started with it can call back any more.
CALLBACK_KEY_IDS: Final = ("k1",)
# Credentials are signed with this one. To replace it, change the id: the application goes on listing the public half of
# every key that it has signed with, so that older credentials stay good.
CREDENTIAL_KEY_ID: Final = "k1"
# PKCS #8 around the 32 bytes of an Ed25519 key (RFC 8410, section 7), which any 32 random bytes are.
_ED25519_HEAD: Final = bytes.fromhex("302e020100300506032b657004220420")


@dataclass(frozen=True, kw_only=True)
class SecretsArgs:
    project: str
    location: str
    labels: dict[str, str]
    django_key_readers: dict[str, pulumi.Output[str]]
    """Workload to member. Each gets the one secret, not the project's."""

    callback_key_readers: dict[str, pulumi.Output[str]]
    credential_key_readers: dict[str, pulumi.Output[str]]


@dataclass(frozen=True, kw_only=True)
class PinnedSecret:
    """`version` is a number: `latest` would change under a running revision, and no rollback would bring it back."""

    secret: pulumi.Output[str]
    version: pulumi.Output[str]


class Secrets(Component):
    django_key: PinnedSecret
    callback_keys: PinnedSecret
    credential_key: PinnedSecret
    break_glass_password: pulumi.Output[str]
    """The payload, a Pulumi secret: the database component sets it. Everybody else reads Secret Manager."""

    readers: list[pulumi.Resource]
    """What a workload has to wait for before it can read its secrets."""

    def __init__(self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.args = args
        self.readers = []
        django_key = random.RandomPassword(f"{name}-django-key-value", length=64, opts=self.child)
        password = random.RandomPassword(
            f"{name}-break-glass-value",
            length=40,
            # Typed by hand into a connection string on a bad day.
            special=False,
            opts=self.child,
        )
        self.django_key = self.keep("django-secret-key", django_key.result, args.django_key_readers)
        # No reader: the operator grants themselves access when the glass is broken, and the audit log shows it.
        self.keep("database-break-glass-password", password.result, {})
        self.break_glass_password = password.result
        keys = [
            pulumi.Output.concat(
                key_id, ":", random.RandomBytes(f"{name}-callback-key-{key_id}", length=32, opts=self.child).base64
            )
            for key_id in CALLBACK_KEY_IDS
        ]
        self.callback_keys = self.keep(
            "callback-keys", pulumi.Output.secret(pulumi.Output.all(*keys).apply(",".join)), args.callback_key_readers
        )
        seed = random.RandomBytes(f"{name}-credential-key-{CREDENTIAL_KEY_ID}", length=32, opts=self.child)
        self.credential_key = self.keep(
            "credential-key",
            pulumi.Output.secret(seed.base64.apply(ed25519_pem)),
            args.credential_key_readers,
        )
        self.register_outputs({"django_key_version": self.django_key.version})

    def keep(self, secret_id: str, payload: pulumi.Output[str], readers: dict[str, pulumi.Output[str]]) -> PinnedSecret:
        secret = gcp.secretmanager.Secret(
            secret_id,
            project=self.args.project,
            secret_id=secret_id,
            labels=self.args.labels,
            # `automatic` would let Google choose where the payload lies.
            replication={"user_managed": {"replicas": [{"location": self.args.location}]}},
            opts=self.child,
        )
        version = gcp.secretmanager.SecretVersion(
            f"{secret_id}-value", secret=secret.id, secret_data=payload, opts=self.child
        )
        for workload, member in readers.items():
            reader = gcp.secretmanager.SecretIamMember(
                f"{secret_id}-{workload}",
                project=self.args.project,
                secret_id=secret.secret_id,
                role="roles/secretmanager.secretAccessor",
                member=member,
                opts=self.child,
            )
            self.readers.append(reader)
        return PinnedSecret(secret=secret.secret_id, version=version.version)


def ed25519_pem(seed: str) -> str:
    """A private key as PEM, of 32 random bytes in base64."""
    body = base64.b64encode(_ED25519_HEAD + base64.b64decode(seed)).decode()
    return "\n".join(["-----BEGIN PRIVATE KEY-----", *textwrap.wrap(body, 64), "-----END PRIVATE KEY-----", ""])
