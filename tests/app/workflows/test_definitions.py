"""What can be wrong with a definition, by name."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.simulations import models
from app.workflows import engine
from app.workflows.definitions import Definition, SimulationKind, errors_of


def definition(*steps: dict[str, Any]) -> Definition:
    return Definition.model_validate(
        {"steps": [{"type": "SIMULATION", "config": {"simulation": "FMI"}} | step for step in steps]}
    )


def found(*steps: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error.code.value, error.field) for error in errors_of(definition(*steps), lambda condition: "")]


@pytest.mark.parametrize(
    ("steps", "errors"),
    [
        ([{"key": "a"}, {"key": "b", "depends_on": ["a"]}, {"key": "c", "depends_on": ["b", "a"]}], []),
        ([{"key": "b", "depends_on": ["a"]}, {"key": "a"}], []),
        ([{"key": "a"}, {"key": "a"}], [("duplicate-step", "steps[1].key")]),
        ([{"key": "a", "depends_on": ["a"]}], [("self-dependency", "steps[0].depends_on[0]")]),
        ([{"key": "a", "depends_on": ["b"]}], [("unknown-step", "steps[0].depends_on[0]")]),
        (
            [{"key": "a"}, {"key": "b", "depends_on": ["a", "a"]}],
            [("duplicate-dependency", "steps[1].depends_on[1]")],
        ),
        (
            [{"key": "a", "depends_on": ["b"]}, {"key": "b", "depends_on": ["a"]}],
            [("cycle", "steps[0].depends_on")],
        ),
        (
            [
                {"key": "a", "depends_on": ["b"]},
                {"key": "b", "depends_on": ["a"]},
                {"key": "c", "depends_on": ["d"]},
                {"key": "d", "depends_on": ["c"]},
            ],
            [("cycle", "steps[0].depends_on"), ("cycle", "steps[2].depends_on")],
        ),
        (
            [{"key": "a", "depends_on": ["b"]}, {"key": "b", "depends_on": ["a"]}, {"key": "c", "depends_on": ["a"]}],
            [("cycle", "steps[0].depends_on"), ("unreachable-step", "steps[2]")],
        ),
        (
            [{"key": "a", "depends_on": ["gone"]}, {"key": "b", "depends_on": ["a"]}],
            [("unknown-step", "steps[0].depends_on[0]"), ("unreachable-step", "steps[1]")],
        ),
        (
            [{"key": "a"}, {"key": "b", "inputs": {"x": {"ref": "/steps/a/outputs/y"}}}],
            [("not-upstream", "steps[1].inputs.x")],
        ),
        (
            [{"key": "a"}, {"key": "b", "depends_on": ["a"], "inputs": {"x": {"ref": "/steps/a/outputs/y"}}}],
            [],
        ),
        (
            [{"key": "a", "type": "VALIDATOR", "config": {"validator": "json-schema", "schema": {}}}],
            [("missing-input", "steps[0].inputs.document")],
        ),
    ],
)
def test_each_error_of_a_graph_has_its_name_and_place(steps: list[dict[str, Any]], errors: list[Any]) -> None:
    assert found(*steps) == errors


def test_a_cycle_is_shown_in_the_order_of_waiting() -> None:
    steps = [{"key": "a", "depends_on": ["c"]}, {"key": "b", "depends_on": ["a"]}, {"key": "c", "depends_on": ["b"]}]

    (error,) = errors_of(definition(*steps), lambda condition: "")

    assert error.message == "each of these steps waits for the next one: a → c → b → a"


def test_a_condition_that_does_not_compile_is_named() -> None:
    (error,) = errors_of(definition({"key": "a", "condition": "1 +"}), lambda condition: f"no end: {condition}")

    assert (error.code.value, error.field, error.message) == ("bad-condition", "steps[0].condition", "no end: 1 +")


@pytest.mark.parametrize(
    ("condition", "is_upstream"),
    [
        ("steps.a.state == 'SUCCESS'", True),
        ('steps["a"].outputs.errors == 0 && has(steps.a.outputs)', True),
        ("steps.c.state == 'SUCCESS'", False),
        ("steps.typo.state == 'SUCCESS'", False),
        ("steps [ 'c' ].state == 'SUCCESS'", False),
        ("steps\n.c.state == 'SUCCESS'", False),
        ("inputs.steps.c == 1 && inputs.mysteps.c == 1", True),
        ("inputs.note == 'see steps.c' || inputs.note == \"steps['c']\"", True),
        ("true // unless steps.c.state is FAILED", True),
        ("inputs.all.exists(steps, steps.c == 1)", True),
        ("size(steps) > 0 && steps[inputs.which].state == 'SUCCESS'", True),
    ],
)
def test_a_condition_reads_from_steps_that_are_depended_on(condition: str, is_upstream: bool) -> None:
    errors = found({"key": "a"}, {"key": "b", "depends_on": ["a"], "condition": condition}, {"key": "c"})

    assert errors == ([] if is_upstream else [("not-upstream", "steps[1].condition")])


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20, unique=True), count=st.integers(1, 8)
)
@settings(max_examples=300, deadline=None)
def test_a_graph_is_accepted_exactly_when_every_step_can_run(edges: list[tuple[int, int]], count: int) -> None:
    steps = [{"key": f"s{n}", "depends_on": [f"s{b}" for a, b in edges if a == n]} for n in range(count)]

    errors = found(*steps)

    try:
        engine.in_order(definition(*steps).as_steps())
        can_run = True
    except ValueError:
        can_run = False
    assert (errors == []) is can_run


def test_the_hash_of_a_version_ignores_how_it_was_written() -> None:
    written_out = {"key": "a", "depends_on": [], "run_when": "ALL_SUCCEEDED", "retry": {"max_attempts": 1}}

    assert definition({"key": "a"}).sha256 == definition(written_out).sha256
    assert definition({"key": "a"}).sha256 != definition({"key": "b"}).sha256


@pytest.mark.parametrize(
    "step",
    [
        {"key": "A"},
        {"key": "a", "unknown": 1},
        {"key": "a", "retry": {"max_attempts": 0}},
        {"key": "a", "inputs": {"x": {"ref": "inputs/x"}}},
        {"key": "a", "type": "VALIDATOR", "config": {"validator": "cel", "schema": {}}},
        {"key": "a", "type": "ACTION", "config": {"action": "WEBHOOK", "endpoint": "http://example.com"}},
    ],
)
def test_a_step_of_the_wrong_shape_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        definition(step)


def test_a_simulation_is_called_the_same_in_definitions_and_in_jobs() -> None:
    assert [kind.value for kind in SimulationKind] == models.SimulationKind.values
