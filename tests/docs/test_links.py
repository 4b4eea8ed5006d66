"""Where the documentation points to exists, and it names no machine."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, documents, without_blocks

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
#: Addresses of hosts that examples may name: their owners' documentation, ourselves, and this machine.
HOSTS = re.compile(
    r"(127\.0\.0\.1|localhost|validibot\.com|googleapis\.com|cloud\.google\.com|pulumi\.com|go\.dev|"
    r"rfc-editor\.org|slack\.com|run\.app)$"
)


def anchors(file: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = HEADING.findall(without_blocks(file.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_relative_links_lead_somewhere(file: Path) -> None:
    broken = []
    for link in LINK.findall(without_blocks(file.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        target = (file.parent / path).resolve() if path else file
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    decisions = ROOT / "docs" / "adr"
    listed = {(decisions / link).resolve() for link in LINK.findall((decisions / "README.md").read_text())}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page.parent != decisions and page != index}

    assert len(pages) > 10
    assert pages - linked == set()
    assert {page for page in decisions.glob("0*.md")} == listed


@pytest.mark.parametrize("file", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_page_names_a_machine_or_a_strange_host(file: Path) -> None:
    text = file.read_text()
    machines = re.findall(r"(?<![\w/.-])/(?:home|root|Users|work|mnt)/\S*", text)
    hosts = [host for host in re.findall(r"https?://([^/:\s\"'`)>…]+)", text) if not HOSTS.search(host)]

    assert machines == []
    assert hosts == []
