"""Only who may act as an account may have something done in its name."""

from typing import TYPE_CHECKING

from localgcp.iam import accounts

if TYPE_CHECKING:
    from localgcp.service import Call


def may_act_as(call: "Call", email: str) -> bool:
    """Whether the account exists and grants the caller `iam.serviceAccounts.actAs`. Each API words its own refusal."""
    if not accounts.exists(call.store, email):
        return False
    key = accounts.key_of(email) or f"cloudresourcemanager/projects/{call.project}"
    return call.region.iam.allows(call.principal, "iam.serviceAccounts.actAs", key)
