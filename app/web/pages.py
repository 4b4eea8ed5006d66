"""Pages for people."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from app.settings import env


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "web/home.html", {"region": env.data_region.value, "host": env.public_host})


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """There is none. Browsers ask for it on every first visit, and a 404 would count as an error of the site."""
    return HttpResponse(status=204, headers={"Cache-Control": "public, max-age=86400"})
