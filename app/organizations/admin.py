from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from app.organizations.models import ApiKey, Organization
from app.settings import env

if TYPE_CHECKING:  # the generics exist in the stubs only
    _OrganizationAdmin = admin.ModelAdmin[Organization]
    _ApiKeyAdmin = admin.ModelAdmin[ApiKey]
else:
    _OrganizationAdmin = _ApiKeyAdmin = admin.ModelAdmin


@admin.register(Organization)
class OrganizationAdmin(_OrganizationAdmin):
    list_display = ("slug", "name", "data_region", "created_at")
    list_filter = ("data_region",)
    search_fields = ("slug", "name")

    readonly_fields = ("data_region", "created_at")

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        if not change:
            obj.data_region = env.data_region.value  # an organisation is created in the region of its data
        super().save_model(request, obj, form, change)


@admin.register(ApiKey)
class ApiKeyAdmin(_ApiKeyAdmin):
    """Keys are made by `create_organization`, which takes the hash of a key: no page ever shows one."""

    list_display = ("prefix", "organization", "name", "last_used_at", "revoked_at")
    list_filter = ("organization",)
    readonly_fields = ("organization", "prefix", "sha256", "created_at", "last_used_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a revoked key still explains the jobs it made

    @admin.action(description="Revoke the selected API keys")
    def revoke(self, request: HttpRequest, queryset: Any) -> None:
        revoked = queryset.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, f"{revoked} API keys revoked.")
