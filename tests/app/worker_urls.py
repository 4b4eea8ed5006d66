"""The worker's addresses in a process whose role is another one."""

from django.urls import include, path

urlpatterns = [path("internal/", include("app.internal.urls"))]
