from typing import TYPE_CHECKING

from django.contrib import admin

from app.simulations.models import SimulationJob
from app.web.read_only import ReadOnly

if TYPE_CHECKING:  # the generics exist in the stubs only
    _SimulationJobAdmin = admin.ModelAdmin[SimulationJob]
else:
    _SimulationJobAdmin = admin.ModelAdmin


@admin.register(SimulationJob)
class SimulationJobAdmin(ReadOnly, _SimulationJobAdmin):
    list_display = ("id", "organization", "kind", "state", "backend", "created_at", "deadline_at", "finished_at")
    list_filter = ("state", "kind", "backend", "organization")
    list_select_related = ("organization",)
    search_fields = ("id", "execution")
    show_full_result_count = False
