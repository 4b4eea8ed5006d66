"""The offline random provider, without an engine."""

import base64
import string
import uuid
from typing import Any

import pytest

from localgcp.pulumi.provider import UNKNOWN, CheckFailure, Diff, ProviderError, Secret
from localgcp.pulumi.random_provider import RandomProvider

PASSWORD = "random:index/randomPassword:RandomPassword"
STRING = "random:index/randomString:RandomString"
ID = "random:index/randomId:RandomId"
BYTES = "random:index/randomBytes:RandomBytes"
UUID = "random:index/randomUuid:RandomUuid"
INTEGER = "random:index/randomInteger:RandomInteger"

provider = RandomProvider()


def failures(type: str, **inputs: Any) -> list[CheckFailure]:
    return provider.check(type, "urn", olds=None, news=inputs, random_seed=b"")[1]


def create(type: str, *, preview: bool = False, **inputs: Any) -> tuple[str, dict[str, Any]]:
    return provider.create(type, "urn", inputs=inputs, preview=preview, timeout_seconds=None)


def diff(type: str, old: dict[str, Any], new: dict[str, Any]) -> Diff:
    return provider.diff(type, "urn", "id", old_inputs=old, old_outputs={}, news=new)


def test_a_password_is_secret_and_is_not_its_own_id() -> None:
    id, outputs = create(PASSWORD, length=20)

    assert id == "none"
    assert isinstance(outputs["result"], Secret)
    assert len(outputs["result"].value) == 20


def test_a_string_is_open_and_is_its_own_id() -> None:
    id, outputs = create(STRING, length=8, special=False)

    assert outputs["result"] == id
    assert len(id) == 8


def test_a_string_holds_the_minimum_of_each_kind() -> None:
    _, outputs = create(
        STRING, length=10, minLower=2, minUpper=2, minNumeric=3, minSpecial=3, overrideSpecial="#", keepers={"a": "b"}
    )

    text = outputs["result"]
    counted = [sum(character in alphabet for character in text) for alphabet in (string.digits, "#")]
    assert counted == [3, 3]
    assert sum(map(str.islower, text)) == 2
    assert sum(map(str.isupper, text)) == 2


def test_a_string_uses_only_what_is_allowed() -> None:
    _, outputs = create(STRING, length=500, upper=False, special=False, numeric=False)

    assert set(outputs["result"]) <= set(string.ascii_lowercase)


def test_an_id_shows_the_same_bytes_in_every_form() -> None:
    id, outputs = create(ID, byteLength=6, prefix="p-")

    drawn = base64.urlsafe_b64decode(id + "==")
    assert {key: outputs[key] for key in ("hex", "dec", "b64Std", "b64Url")} == {
        "hex": f"p-{drawn.hex()}",
        "dec": f"p-{int.from_bytes(drawn, 'big')}",
        "b64Std": f"p-{base64.b64encode(drawn).decode()}",
        "b64Url": f"p-{id}",
    }


def test_bytes_are_secret() -> None:
    _, outputs = create(BYTES, length=16)

    assert len(bytes.fromhex(outputs["hex"].value)) == 16
    assert base64.b64decode(outputs["base64"].value) == bytes.fromhex(outputs["hex"].value)


def test_a_uuid_is_one() -> None:
    id, outputs = create(UUID)

    assert uuid.UUID(id).version == 4
    assert outputs["result"] == id


def test_an_integer_is_within_its_bounds_and_reaches_both() -> None:
    assert {create(INTEGER, min=3, max=5)[1]["result"] for _ in range(200)} == {3, 4, 5}


def test_a_preview_draws_nothing() -> None:
    assert create(PASSWORD, preview=True, length=UNKNOWN)[1]["result"] == Secret(UNKNOWN)


def test_two_draws_differ() -> None:
    assert create(PASSWORD, length=20)[1]["result"].value != create(PASSWORD, length=20)[1]["result"].value


@pytest.mark.parametrize(
    ("type", "inputs", "property", "reason"),
    [
        (PASSWORD, {}, "length", f"{PASSWORD} needs 'length'"),
        (PASSWORD, {"length": "20"}, "length", "expected int, found str"),
        (PASSWORD, {"length": 0}, "length", "length is 0: choose 1 to 65536"),
        (PASSWORD, {"length": 2, "minUpper": 3}, "length", "length is 2, but the minimums add up to 3"),
        (
            STRING,
            {"length": 2, "minUpper": 1, "upper": False},
            "minUpper",
            "at least 1 are asked for of a kind of character that is excluded",
        ),
        (ID, {"byteLength": 0}, "byteLength", "byteLength is 0: choose 1 to 65536"),
        (ID, {"byteLength": 1, "keepers": "x"}, "keepers", "expected a map of strings"),
        (INTEGER, {"min": 2, "max": 1}, "max", "max is 1, which is less than min, 2"),
        (
            INTEGER,
            {"min": 1, "max": 2, "seed": "x"},
            "seed",
            f"{INTEGER} has no property 'seed'; it has keepers, max, min",
        ),
    ],
)
def test_a_wrong_input_is_refused_by_name(type: str, inputs: dict[str, Any], property: str, reason: str) -> None:
    assert failures(type, **inputs) == [CheckFailure(property, reason)]


def test_what_is_not_known_yet_is_not_refused() -> None:
    assert failures(PASSWORD, length=UNKNOWN, minUpper=3, keepers=UNKNOWN) == []


def test_a_type_that_is_left_out_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ProviderError, match=r"does not know random:index/randomPet:RandomPet: it knows RandomBytes, "):
        failures("random:index/randomPet:RandomPet")


def test_another_keeper_draws_again() -> None:
    old, new = {"length": 8, "keepers": {"a": "1", "b": "2"}}, {"length": 8, "keepers": {"a": "2", "c.d": "3"}}

    assert diff(STRING, old, new) == Diff(
        changes={"keepers.a": "update", "keepers.b": "delete", 'keepers["c.d"]': "add"},
        replaces=("keepers.a", "keepers.b", 'keepers["c.d"]'),
    )


def test_another_length_draws_again() -> None:
    assert diff(STRING, {"length": 8}, {"length": 9}) == Diff(changes={"length": "update"}, replaces=("length",))


def test_spelling_out_a_default_changes_nothing() -> None:
    assert diff(STRING, {"length": 8}, {"length": 8, "special": True, "minUpper": 0}) == Diff()


def test_a_refresh_finds_what_was_drawn_and_keeps_it_secret() -> None:
    state = {"length": 8, "result": "abcdefgh"}

    found = provider.read(PASSWORD, "urn", "none", inputs={"length": 8}, outputs=state)

    assert found is not None
    assert (found.id, found.inputs, found.outputs) == (
        "none",
        {"length": 8},
        {"length": 8, "result": Secret("abcdefgh")},
    )


def test_an_imported_password_does_not_stay_in_the_id() -> None:
    found = provider.read(PASSWORD, "urn", "hunter2", inputs=None, outputs=None)

    assert found is not None
    assert (found.id, found.outputs) == ("none", {"length": 7, "result": Secret("hunter2")})


def test_what_cannot_be_imported_says_so() -> None:
    with pytest.raises(ProviderError, match="RandomBytes cannot be imported"):
        provider.read(BYTES, "urn", "x", inputs=None, outputs=None)
