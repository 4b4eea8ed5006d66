"""Service accounts as other parts of localgcp see them: by e-mail or unique id, whichever project they belong to."""

import hashlib
import re
from typing import Any

from localgcp.iam.principal import OPERATOR_EMAIL
from localgcp.store import Resource, Store

OWN_DOMAIN = ".iam.gserviceaccount.com"

#: Unique ids outlive their accounts: a deleted account can be restored by it, and nobody else gets it.
TABLE = """
CREATE TABLE IF NOT EXISTS service_account_ids (
    unique_id TEXT PRIMARY KEY,
    email TEXT NOT NULL,
    deleted_body TEXT,
    deleted_at REAL
);
"""

# Accounts that Google makes with a project or an API. Nobody creates them, so no row exists for them.
_GOOGLE_MANAGED = re.compile(
    r"\d+-compute@developer\.gserviceaccount\.com"
    r"|\d+@(cloudservices|cloudbuild)\.gserviceaccount\.com"
    r"|project-\d+@storage-transfer-service\.iam\.gserviceaccount\.com"
    r"|service-\d+@[a-z0-9.-]+\.gserviceaccount\.com"
    r"|p\d+-\d+@gcp-sa-cloud-sql\.iam\.gserviceaccount\.com"
    r"|[a-z0-9-]+@(appspot|system)\.gserviceaccount\.com"
)


def key_of(email: str) -> str | None:
    """The store key of a user-managed account, or None when the address is not one's."""
    name, _, domain = email.partition("@")
    if not name or not domain.endswith(OWN_DOMAIN):
        return None
    project = domain.removesuffix(OWN_DOMAIN)
    return f"iam/projects/{project}/serviceAccounts/{email}"


def stable_unique_id(email: str) -> str:
    """21 digits, as Google's are. The same for one address for ever: only for accounts that nobody creates."""
    return "1" + str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:16], "big"))[:20].zfill(20)


def is_google_managed(email: str) -> bool:
    return email == OPERATOR_EMAIL or _GOOGLE_MANAGED.fullmatch(email) is not None


def find(store: Store, email: str) -> Resource | None:
    key = key_of(email)
    return store.find(key) if key else None


def exists(store: Store, email: str) -> bool:
    return is_google_managed(email) or find(store, email) is not None


def is_usable(store: Store, email: str) -> bool:
    """Whether the account may authenticate: it exists and nobody has disabled it. People are not accounts of ours."""
    if not email.endswith("gserviceaccount.com") or is_google_managed(email):
        return True
    account: dict[str, Any] | None = find(store, email)
    return account is not None and not account.get("disabled", False)


def unique_id(store: Store, email: str) -> str:
    account = find(store, email)
    return str(account["uniqueId"]) if account else stable_unique_id(email)


def find_by_unique_id(store: Store, identifier: str) -> Resource | None:
    row = store.row("SELECT email FROM service_account_ids WHERE unique_id = ?", (identifier,))
    return find(store, row["email"]) if row else None
