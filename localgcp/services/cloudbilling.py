"""Cloud Billing: which billing account a project is linked to. Accounts themselves are not kept: any name is one."""

from typing import Any

from localgcp.service import Call, Service
from localgcp.store import Resource

service = Service("cloudbilling:v1")
service.permissions |= {
    # The handlers check on the project: the path ends in `billingInfo`, which is no resource with a policy.
    "projects.getBillingInfo": None,
    "projects.updateBillingInfo": None,
}


@service.method("projects.getBillingInfo")
def get_billing_info(call: Call) -> dict[str, Any]:
    call.check("resourcemanager.projects.get", f"cloudresourcemanager/projects/{call.project}")
    return _info(call, call.store.find(_key(call)) or {})


@service.method("projects.updateBillingInfo")
def update_billing_info(call: Call) -> dict[str, Any]:
    permission = "resourcemanager.projects.createBillingAssignment"
    call.check(permission, f"cloudresourcemanager/projects/{call.project}")
    account = call.body.get("billingAccountName") or ""
    return _info(call, call.store.put(_key(call), {"billingAccountName": account}))


def _key(call: Call) -> str:
    return f"cloudbilling/projects/{call.project}/billingInfo"


def _info(call: Call, stored: Resource | dict[str, Any]) -> dict[str, Any]:
    account = stored.get("billingAccountName", "")
    info = {"name": f"projects/{call.project}/billingInfo", "projectId": call.project}
    return info | ({"billingAccountName": account, "billingEnabled": True} if account else {})
