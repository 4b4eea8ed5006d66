from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from app.validations.models import Finding, ValidationJob

if TYPE_CHECKING:  # the generics exist in the stubs only
    _FindingInline = admin.TabularInline[Finding, ValidationJob]
    _ValidationJobAdmin = admin.ModelAdmin[ValidationJob]
else:
    _FindingInline, _ValidationJobAdmin = admin.TabularInline, admin.ModelAdmin


class _ReadOnly:
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class FindingInline(_ReadOnly, _FindingInline):
    model = Finding
    fields = ("severity", "code", "path", "line", "column", "message")
    extra = 0


@admin.register(ValidationJob)
class ValidationJobAdmin(_ReadOnly, _ValidationJobAdmin):
    list_display = ("id", "organization", "validator", "state", "verdict", "errors", "created_at")
    list_filter = ("state", "verdict", "validator", "organization")
    list_select_related = ("organization",)
    search_fields = ("id", "filename")
    show_full_result_count = False
    inlines: ClassVar = [FindingInline]
