"""Values across the wire: whatever goes in comes out, and what is secret stays secret."""

from typing import Any

import pytest

from localgcp.pulumi import wire
from localgcp.pulumi.provider import (
    UNKNOWN,
    AssetArchive,
    ElidedAsset,
    FileArchive,
    FileAsset,
    RemoteArchive,
    RemoteAsset,
    Secret,
    StringAsset,
)

PLAIN = {
    "text": "words",
    "empty": "",
    "whole": 7,
    "fraction": 0.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": ["a", 1, {"deep": []}],
    "object": {"key.with.dots": {}, "unknown": UNKNOWN},
}


def test_plain_values_and_unknowns_survive_the_round_trip() -> None:
    assert wire.decode(wire.encode(PLAIN)) == (PLAIN, None)


def test_a_whole_number_arrives_as_an_int_and_true_stays_a_bool() -> None:
    decoded, _ = wire.decode(wire.encode({"whole": 7.0, "yes": True}))

    assert {key: (value, type(value)) for key, value in decoded.items()} == {"whole": (7, int), "yes": (True, bool)}


def test_a_secret_arrives_plain_and_the_mask_says_where_it_was() -> None:
    sent = {"a": Secret({"b": "x"}), "c": ["y", Secret("z")], "d": "open"}

    assert wire.decode(wire.encode(sent)) == (
        {"a": {"b": "x"}, "c": ["y", "z"], "d": "open"},
        {"a": True, "c": {1: True}},
    )


def test_an_unknown_secret_is_unknown_and_secret() -> None:
    assert wire.decode(wire.encode({"a": Secret(UNKNOWN)})) == ({"a": UNKNOWN}, {"a": True})


@pytest.mark.parametrize(
    "value",
    [
        FileAsset("./a.txt", "11"),
        StringAsset("hello", "22"),
        StringAsset("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        RemoteAsset("https://example.com/a", "33"),
        ElidedAsset("44"),
        FileArchive("./folder", "55"),
        RemoteArchive("https://example.com/a.zip", "66"),
        AssetArchive({"inner": StringAsset("x", "77")}, "88"),
    ],
)
def test_an_asset_arrives_as_what_it_was(value: Any) -> None:
    assert wire.decode(wire.encode({"source": value})) == ({"source": value}, None)


def test_a_value_of_a_foreign_type_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"^labels\.x\[1\]: a provider returned a set"):
        wire.encode({"labels": {"x": ["a", {"b"}]}})


def test_an_output_is_secret_where_the_input_of_its_name_was() -> None:
    inputs = {"password": "p", "settings": {"key": "k", "open": "o"}}
    outputs = {"password": "p", "settings": {"key": "K", "open": "o"}, "id": 1}

    assert wire.carry_over({"password": True, "settings": {"key": True}}, inputs, outputs) == {
        "password": True,
        "settings": {"key": True},
    }


def test_a_list_that_comes_back_in_another_order_is_secret_as_a_whole() -> None:
    assert wire.carry_over({"env": {1: True}}, {"env": ["a", "s"]}, {"env": ["s", "a"]}) == {"env": True}


def test_a_list_that_comes_back_as_it_went_is_secret_only_where_it_was() -> None:
    assert wire.carry_over({"env": {1: True}}, {"env": ["a", "s"]}, {"env": ["a", "s"]}) == {"env": {1: True}}


def test_masks_merge_to_what_either_hides() -> None:
    assert wire.merge({"a": {"x": True}}, {"a": {"y": True}, "b": True}) == {"a": {"x": True, "y": True}, "b": True}
