"""Conditions: only the boolean true holds, and an error stays an error."""

from collections.abc import Iterator

import pytest

from app.validations.engines.pool import Pool
from app.validations.engines.results import Refused

VARIABLES = {"inputs": {"n": 2, "big": 2**70}, "steps": {"check": {"state": "SUCCESS", "outputs": {"errors": 0}}}}


@pytest.fixture(scope="module")
def children() -> Iterator[Pool]:
    children = Pool(1)
    yield children
    children.close()


@pytest.mark.parametrize(
    ("condition", "why_not"),
    [
        ("steps.check.outputs.errors == 0 && inputs.n > 1", ""),
        ("inputs.n > 2", "false"),
        ("!has(inputs.absent)", ""),
        ("inputs.absent", 'the condition could not be evaluated: NOT_FOUND: Key not found in map : "absent"'),
        ("!inputs.absent", 'the condition could not be evaluated: NOT_FOUND: Key not found in map : "absent"'),
        ("inputs.n", "the condition's result is a INT, not a BOOL"),
        ("'true'", "the condition's result is a STRING, not a BOOL"),
    ],
)
def test_a_condition_holds_only_when_it_is_true(children: Pool, condition: str, why_not: str) -> None:
    variables = VARIABLES | {"inputs": {"n": 2}}

    assert children.why_not(condition, variables) == why_not


@pytest.mark.parametrize(
    ("condition", "code"), [("1 +", "bad-rule"), ("document == 1", "bad-rule"), ("x" * 5000, "over-budget")]
)
def test_a_condition_that_cannot_be_compiled_is_refused_without_variables(
    children: Pool, condition: str, code: str
) -> None:
    with pytest.raises(Refused) as refused:
        children.why_not(condition, None)

    assert (refused.value.code, refused.value.field) == (code, "condition")


def test_a_condition_over_a_number_that_cel_cannot_hold_is_refused(children: Pool) -> None:
    with pytest.raises(Refused) as refused:
        children.why_not("inputs.big > 1", VARIABLES)

    assert refused.value.code == "number-too-large"
