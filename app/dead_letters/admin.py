from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from app.dead_letters import letters
from app.dead_letters.models import DeadLetter

if TYPE_CHECKING:  # the generics exist in the stubs only
    _DeadLetterAdmin = admin.ModelAdmin[DeadLetter]
else:
    _DeadLetterAdmin = admin.ModelAdmin


@admin.register(DeadLetter)
class DeadLetterAdmin(_DeadLetterAdmin):
    list_display = ("id", "state", "queue", "route", "task_id", "attempts", "error_type", "failed_at")
    list_filter = ("state", "queue", "route", "error_type")
    search_fields = ("task_id", "trace")
    show_full_result_count = False
    actions = ("requeue", "purge")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        # Every field: deciding is what the actions are for, and they take the permission to change.
        return [field.name for field in DeadLetter._meta.fields]

    @admin.action(description="Requeue: deliver again, from the first attempt", permissions=["change"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        from app.tasks import TASKS

        self._each(request, queryset, "requeued", lambda id_: letters.requeue(id_, TASKS))

    @admin.action(description="Purge: decide that they are not to be done", permissions=["change"])
    def purge(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        self._each(request, queryset, "purged", letters.purge)

    def _each(self, request: HttpRequest, queryset: QuerySet[DeadLetter], done: str, decide: Any) -> None:
        count = 0
        for id_ in queryset.values_list("pk", flat=True):
            try:
                decide(id_)
            except letters.NotRequeued as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                count += 1
        self.message_user(request, f"{count} dead letters {done}")
