from typing import Any


def announce(organization_id: int, event: str, message_id: str, data: dict[str, Any]) -> None:
    pass
