"""Addresses, by role: what the web service serves, the worker does not, and the other way round.

`/healthz` and `/readyz` belong to both, and are answered by a middleware.
"""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from app.settings import env

urlpatterns: list[URLPattern | URLResolver] = []

if env.role == "web":
    from app.callbacks.views import receive
    from app.web.api import api
    from app.web.pages import favicon, home
    from app.workflows.credentials import did_document

    urlpatterns += [
        path("", home, name="home"),
        path("favicon.ico", favicon),
        path("admin/", admin.site.urls),
        path("api/", api.urls),
        path(".well-known/did.json", did_document),
        path("callbacks/<slug:kind>/<uuid:target>", receive),
    ]

if env.role == "worker":
    urlpatterns += [path("internal/", include("app.internal.urls"))]
