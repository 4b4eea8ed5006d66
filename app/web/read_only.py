"""Pages of the admin that show rows, and let nobody make, change or delete one."""

from typing import Any

from django.http import HttpRequest


class ReadOnly:
    """For a `ModelAdmin` or an inline, before the class that it comes from."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
