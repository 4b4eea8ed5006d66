"""Budgets of billing accounts: kept and answered. Nothing here costs anything, so no threshold is ever reached."""

import uuid
from typing import Any

from localgcp.errors import InvalidArgument
from localgcp.service import Call, Service

service = Service("billingbudgets:v1")
service.allow("billing.budgets", "billingAccounts.budgets")


@service.method("billingAccounts.budgets.create")
def create_budget(call: Call) -> Any:
    if not call.body.get("amount"):
        raise InvalidArgument("A budget must have an amount.")
    call.body["name"] = f"{call.named}/budgets/{uuid.uuid4()}"
    return call.proceed()
