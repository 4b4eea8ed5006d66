"""The region in a real browser: what a person sees, and what the browser itself refuses."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator

import pytest
from google.cloud import run_v2
from google.oauth2.credentials import Credentials
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.region import Up

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
USER = "browser-test"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package `chromium`"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Chromium's sandbox refuses to be started by root.
    flags = [*FLAGS, "--no-sandbox"] if sys.platform == "linux" and os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, up: Up) -> Iterator[Page]:
    """A page that has had nothing to complain about: no script error, nothing that the security policy blocked."""
    context = browser.new_context(base_url=up.url)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: complaints.append(request.url))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def password(up: Up) -> str:
    """Of an administrator, made by the maintenance job as an operator would."""
    chosen = secrets.token_urlsafe(16)
    jobs = run_v2.JobsClient(
        credentials=Credentials(token=up.environ["GOOGLE_OAUTH_ACCESS_TOKEN"]),
        transport="rest",
        client_options={"api_endpoint": up.environ["GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT"].removesuffix("/v2/")},
    )
    overrides = run_v2.RunJobRequest.Overrides(
        container_overrides=[
            run_v2.RunJobRequest.Overrides.ContainerOverride(
                args=["createsuperuser", "--noinput", "--username", USER, "--email", "browser@example.com"],
                env=[run_v2.EnvVar(name="DJANGO_SUPERUSER_PASSWORD", value=chosen)],
            )
        ]
    )
    name = "projects/validibot-au/locations/australia-southeast1/jobs/validibot-maintenance"
    jobs.run_job(request=run_v2.RunJobRequest(name=name, overrides=overrides)).result(timeout=120)
    return chosen


def test_an_administrator_logs_in_and_adds_an_organisation(page: Page, password: str) -> None:
    page.goto("/admin/")
    # The style sheet came from the static bucket, through the load balancer, and was not refused.
    colour = page.locator("#header").evaluate("element => getComputedStyle(element).backgroundColor")
    assert colour not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")

    page.fill("#id_username", USER)
    page.fill("#id_password", password)
    page.click("input[type=submit]")
    page.locator("#user-tools").wait_for()
    page.wait_for_load_state("networkidle")
    page.goto("/admin/organizations/organization/add/")
    page.fill("#id_slug", "browser")
    page.fill("#id_name", "Made in a browser")
    if page.locator("select#id_data_region").count():
        page.select_option("#id_data_region", "AU")
    page.click("input[name=_save]")

    page.locator(".messagelist .success").wait_for()
    page.wait_for_load_state("networkidle")
    assert page.locator("#result_list").get_by_text("Made in a browser").count() == 1


def test_the_interactive_api_documentation_works_without_other_hosts(page: Page, up: Up) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto("/api/docs")
    page.get_by_text("/api/validations").first.wait_for(timeout=30_000)

    assert [url for url in asked if not url.startswith((up.url, "data:", "blob:"))] == []
