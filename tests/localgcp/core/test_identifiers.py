"""Numbers that clients read into a signed 64-bit integer."""

import secrets

import pytest

from localgcp import identifiers


def test_a_number_fits_into_signed_64_bits_whatever_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for extreme in (lambda _: 0, lambda below: below - 1):
        monkeypatch.setattr(secrets, "randbelow", extreme)
        drawn.append(int(identifiers.numeric_id()))

    assert drawn == [10**18, 2**63 - 1]
