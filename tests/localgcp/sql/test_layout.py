"""Where a region keeps what it shares with others, when it may."""

import os
from pathlib import Path

import pytest

from localgcp.sql import layout_of


@pytest.fixture(autouse=True)
def _not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_regions_of_an_account_share_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    assert layout_of(tmp_path / "region").cache == tmp_path / "cache" / "localgcp"


def test_a_region_has_a_cache_of_its_own_where_the_accounts_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))

    assert layout_of(tmp_path / "region").cache == tmp_path / "region" / "cache"
