from typing import TYPE_CHECKING

from django.contrib import admin
from django.http import HttpRequest

from app.web.read_only import ReadOnly
from app.webhooks.models import WebhookDelivery, WebhookEndpoint

if TYPE_CHECKING:  # the generics exist in the stubs only
    _EndpointAdmin = admin.ModelAdmin[WebhookEndpoint]
    _DeliveryAdmin = admin.ModelAdmin[WebhookDelivery]
else:
    _EndpointAdmin = _DeliveryAdmin = admin.ModelAdmin


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(_EndpointAdmin):
    list_display = ("url", "organization", "is_active", "is_internal", "created_at")
    list_filter = ("is_active", "organization")
    list_select_related = ("organization",)
    fields = ("organization", "url", "description", "events", "is_active", "is_internal", "created_at")
    readonly_fields = ("organization", "url", "events", "is_internal", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnly, _DeliveryAdmin):
    list_display = ("id", "endpoint", "event", "state", "attempts", "last_status", "created_at")
    list_filter = ("state", "event")
    list_select_related = ("endpoint",)
    show_full_result_count = False
