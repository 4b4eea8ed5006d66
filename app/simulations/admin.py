from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from app.simulations.models import SimulationJob

if TYPE_CHECKING:  # the generics exist in the stubs only
    _SimulationJobAdmin = admin.ModelAdmin[SimulationJob]
else:
    _SimulationJobAdmin = admin.ModelAdmin


@admin.register(SimulationJob)
class SimulationJobAdmin(_SimulationJobAdmin):
    list_display = ("id", "organization", "kind", "state", "backend", "created_at", "deadline_at", "finished_at")
    list_filter = ("state", "kind", "backend", "organization")
    list_select_related = ("organization",)
    search_fields = ("id", "execution")
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
