"""Field masks, merge patches, partial answers and list filters."""

import pytest

from localgcp.errors import InvalidArgument
from localgcp.fieldmask import apply_mask, merge_patch, parse_mask
from localgcp.filters import matches
from localgcp.partial import select

QUEUE: dict[str, object] = {"name": {}, "rateLimits": {}, "retryConfig": {}, "labels": {}}


def test_a_mask_changes_what_it_names_and_nothing_else() -> None:
    current = {"name": "q", "rateLimits": {"maxDispatchesPerSecond": 1, "maxConcurrentDispatches": 9}}
    body = {"rateLimits": {"maxDispatchesPerSecond": 5}, "retryConfig": {"maxAttempts": 3}}

    changed = apply_mask(current, body, parse_mask("rate_limits.max_dispatches_per_second", QUEUE, "Queue"))

    assert changed == {"name": "q", "rateLimits": {"maxDispatchesPerSecond": 5, "maxConcurrentDispatches": 9}}
    assert current["rateLimits"] == {"maxDispatchesPerSecond": 1, "maxConcurrentDispatches": 9}


def test_a_masked_field_that_the_body_lacks_is_cleared() -> None:
    changed = apply_mask({"labels": {"a": "1"}, "name": "q"}, {}, parse_mask("labels", QUEUE, "Queue"))

    assert changed == {"name": "q"}


def test_a_label_with_an_underscore_keeps_its_name() -> None:
    changed = apply_mask(
        {"labels": {"cost_centre": "1"}}, {"labels": {"cost_centre": "2"}}, [["labels", "cost_centre"]]
    )

    assert changed == {"labels": {"cost_centre": "2"}}


def test_an_unknown_field_in_a_mask_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Queue has no field 'colour'"):
        parse_mask("colour", QUEUE, "Queue")


def test_a_mask_may_begin_with_the_name_of_the_resource() -> None:
    assert parse_mask("policy.spec", {"spec": {}, "name": {}}, "Policy") == [["spec"]]


def test_a_merge_patch_merges_members_and_deletes_nulls() -> None:
    current = {"labels": {"a": "1", "b": "2"}, "versioning": {"enabled": True}}

    changed = merge_patch(current, {"labels": {"a": None, "c": "3"}, "versioning": None})

    assert changed == {"labels": {"b": "2", "c": "3"}}


def test_fields_select_parts_of_lists_and_maps() -> None:
    answer = {"kind": "k", "items": [{"name": "a", "labels": {"x": 1, "y": 2}, "size": 3}], "nextPageToken": "t"}

    selected = select(answer, "items(name,labels/x),nextPageToken")

    assert selected == {"items": [{"name": "a", "labels": {"x": 1}}], "nextPageToken": "t"}
    with pytest.raises(InvalidArgument):
        select(answer, "items(name")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("labels.stack=au", True),
        ('labels.stack="us"', False),
        ("labels.stack!=us", True),
        ("displayName:MEDIA", True),
        ("labels.stack=au AND displayName:x", False),
        ("labels.stack=au displayName:media", True),
        ("(labels.stack=au) enabled=false", False),
        ("enabled=true", True),
        ("labels.missing:*", False),
        ("-labels.stack=au", False),
        ("labels.stack=us OR display_name:media", True),
        ("(labels.stack = au) (enabled = false)", False),
        ("labels.example.com/tier=web", True),
        ("create_time>2026-01-01", True),
        ("create_time<2026-01-02T06:00:00Z", False),
        ("replicas>=3", True),
        ("displayName:au*", True),
        ("displayName=*dia", True),
        ("displayName=m*s", False),
        ("displayName!=au*", False),
    ],
)
def test_a_filter_compares_fields(expression: str, found: bool) -> None:
    resource = {
        "displayName": "au media",
        "labels": {"stack": "au", "example.com/tier": "web"},
        "enabled": True,
        "createTime": "2026-01-02T07:00:00.5Z",
        "replicas": 3,
    }

    assert matches(expression, resource) is found


@pytest.mark.parametrize("expression", ["createTime > 2026 OR x", "name eq web.*", "name=starts_with(web)", "a=b AND"])
def test_a_filter_that_cannot_be_evaluated_is_refused_and_not_ignored(expression: str) -> None:
    with pytest.raises(InvalidArgument, match="beyond what localgcp evaluates"):
        matches(expression, {})
