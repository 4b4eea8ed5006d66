from typing import TYPE_CHECKING, ClassVar

from django.contrib import admin

from app.validations.models import Finding, ValidationJob
from app.web.read_only import ReadOnly

if TYPE_CHECKING:  # the generics exist in the stubs only
    _FindingInline = admin.TabularInline[Finding, ValidationJob]
    _ValidationJobAdmin = admin.ModelAdmin[ValidationJob]
else:
    _FindingInline, _ValidationJobAdmin = admin.TabularInline, admin.ModelAdmin


class FindingInline(ReadOnly, _FindingInline):
    model = Finding
    fields = ("severity", "code", "path", "line", "column", "message")
    extra = 0


@admin.register(ValidationJob)
class ValidationJobAdmin(ReadOnly, _ValidationJobAdmin):
    list_display = ("id", "organization", "validator", "state", "verdict", "errors", "created_at")
    list_filter = ("state", "verdict", "validator", "organization")
    list_select_related = ("organization",)
    search_fields = ("id", "filename")
    show_full_result_count = False
    inlines: ClassVar = [FindingInline]
