"""What the provider sends is what the real one sends: checked against recorded conversations.

The few in `conversations/` are always checked. The whole collection, with every type and its variants, is checked
where it is present: beside the repository, or where `VALIDIBOT_PROVIDER_RECORDINGS` says.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from localgcp.pulumi.gcp.schema import tokens
from localgcp.pulumi.provider import FileAsset
from tests.localgcp.pulumi.gcp.replay import Phase, play, replaying

_OWN = Path(__file__).parent / "conversations"
_ALL = Path(
    os.environ.get("VALIDIBOT_PROVIDER_RECORDINGS")
    or Path(__file__).resolve().parents[4].parent / "shared" / "provider" / "recordings"
)


def _recordings(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(type, recording) of each recorded resource."""
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text(encoding="utf-8"))
        if "type" in recorded:
            for each in (recorded, *(recorded.get("variants") or ())):
                yield recorded["type"], each


def _parameters(folder: Path) -> list[Any]:
    return [pytest.param(type, each, id=f"{type}-{each['resource']}") for type, each in _recordings(folder)]


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "not-a-real-token")


def _lived(type: str, recording: Mapping[str, Any], folder: Path) -> list[Phase]:
    fixtures: dict[str, Any] = {}
    if asset := recording["inputs"].get("source"):
        # The recordings name a style sheet and leave out its file; the content is in the recorded request.
        path = folder / Path(asset["asset"]["path"]).name
        path.write_text("body { color: #123; }\n", encoding="utf-8")
        fixtures["source"] = FileAsset(str(path))
    with replaying() as replay:
        return play(replay, type, recording, fixtures)


def _compare(phases: list[Phase]) -> None:
    assert phases
    for phase in phases:
        assert phase.error == "", phase.name
        assert phase.actual == phase.expected, phase.name


@pytest.mark.parametrize(("type", "recording"), _parameters(_OWN))
def test_a_resource_of_an_essential_type_is_managed_by_the_real_providers_requests(
    type: str, recording: Mapping[str, Any], tmp_path: Path
) -> None:
    _compare(_lived(type, recording, tmp_path))


@pytest.mark.parametrize(
    ("type", "recording"),
    _parameters(_ALL)
    or [pytest.param("", {}, marks=pytest.mark.skip(reason=f"the provider's recordings are missing: {_ALL}"))],
)
def test_a_recorded_resource_is_managed_by_the_real_providers_requests(
    type: str, recording: Mapping[str, Any], tmp_path: Path
) -> None:
    _compare(_lived(type, recording, tmp_path))


def test_every_type_has_been_recorded() -> None:
    recorded = {type for type, _ in _recordings(_ALL)}
    if not recorded:
        pytest.skip(f"the provider's recordings are missing: {_ALL}")
    assert recorded == set(tokens())


def test_the_comparison_notices_a_request_that_differs(tmp_path: Path) -> None:
    """Proof that the tests above can fail: one changed field, one missing request, one too many."""
    type, recording = next((t, r) for t, r in _recordings(_OWN) if t.endswith(":Repository"))
    honest = {phase.name: phase for phase in _lived(type, recording, tmp_path)}
    create = honest["create"].expected
    method, path, query, body = create[0]

    assert honest["create"].is_equal
    for altered in (
        [(method, path, query, {**body, "format": "MAVEN"}), *create[1:]],
        create[1:],
        [*create, create[0]],
    ):
        assert not Phase("create", altered, honest["create"].actual).is_equal
