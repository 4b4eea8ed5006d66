"""Only who may act as an account may have something done in its name."""

from typing import TYPE_CHECKING

from localgcp.errors import PermissionDenied
from localgcp.iam import accounts

if TYPE_CHECKING:
    from localgcp.service import Call


def check_may_act_as(call: "Call", email: str) -> None:
    """Raises PermissionDenied without `iam.serviceAccounts.actAs`, and for an account that does not exist."""
    key = accounts.key_of(email) or f"cloudresourcemanager/projects/{call.project}"
    if not accounts.exists(call.store, email) or not call.region.iam.allows(
        call.principal, "iam.serviceAccounts.actAs", key
    ):
        raise PermissionDenied(
            'The principal (user or service account) lacks IAM permission "iam.serviceAccounts.actAs" for the'
            f' resource "{email}" (or the resource may not exist).'
        )
