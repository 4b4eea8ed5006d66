from typing import TYPE_CHECKING, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from app.web.read_only import ReadOnly
from app.workflows.models import WorkflowDefinition, WorkflowRun, WorkflowStepRun, WorkflowVersion

if TYPE_CHECKING:  # the generics exist in the stubs only
    _StepRunInline = admin.TabularInline[WorkflowStepRun, WorkflowRun]
    _VersionInline = admin.TabularInline[WorkflowVersion, WorkflowDefinition]
    _WorkflowAdmin = admin.ModelAdmin[WorkflowDefinition]
    _RunAdmin = admin.ModelAdmin[WorkflowRun]
else:
    _StepRunInline = _VersionInline = admin.TabularInline
    _WorkflowAdmin = _RunAdmin = admin.ModelAdmin


class VersionInline(ReadOnly, _VersionInline):
    """Without the steps: they may hold secrets, and the API shows them masked."""

    model = WorkflowVersion
    fields = readonly_fields = ("number", "sha256", "created_at")
    extra = 0


class StepRunInline(ReadOnly, _StepRunInline):
    model = WorkflowStepRun
    fields = ("step", "state", "attempt", "starts", "problem", "not_before", "due_at", "started_at", "finished_at")
    readonly_fields = fields
    extra = 0

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WorkflowStepRun]":
        return super().get_queryset(request).select_related("step").defer("outputs", "step__settings")


@admin.register(WorkflowDefinition)
class WorkflowAdmin(ReadOnly, _WorkflowAdmin):
    list_display = ("id", "organization", "name", "created_at")
    list_filter = ("organization",)
    list_select_related = ("organization",)
    search_fields = ("id", "name")
    show_full_result_count = False
    inlines: ClassVar = [VersionInline]


@admin.register(WorkflowRun)
class RunAdmin(ReadOnly, _RunAdmin):
    list_display = ("id", "organization", "version", "state", "created_at", "finished_at")
    list_filter = ("state", "organization")
    list_select_related = ("organization", "version")
    search_fields = ("id",)
    exclude = ("inputs",)
    show_full_result_count = False
    inlines: ClassVar = [StepRunInline]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WorkflowRun]":
        # A megabyte each, at most; nothing here shows them.
        return super().get_queryset(request).defer("inputs")
