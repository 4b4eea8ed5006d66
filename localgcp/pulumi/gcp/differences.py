"""What differs between the inputs of the last operation and the ones wanted now."""

from collections.abc import Mapping
from typing import Any

from localgcp.pulumi.gcp.checking import DEFAULTS
from localgcp.pulumi.gcp.kind import Kind
from localgcp.pulumi.gcp.mapping import join
from localgcp.pulumi.gcp.schema import Properties, Property
from localgcp.pulumi.gcp.values import is_zero, same
from localgcp.pulumi.provider import UNKNOWN, Change, Diff, property_path

Path = tuple[str | int, ...]

# The name of a record is the one in the DNS, which nobody makes up.
_RECORD_SET = "gcp:dns/recordSet:RecordSet"
# Of this one, without a name, the provider says it outright.
_PROJECT_MEMBER = "gcp:projects/iAMMember:IAMMember"


class _Comparison:
    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.changes: dict[str, Change] = {}
        self.replaces: list[str] = []

    def compare(
        self, props: Properties, olds: Mapping[str, Any], news: Mapping[str, Any], path: Path, dotted: str
    ) -> None:
        for name, prop in props.items():
            if prop.output:
                continue
            old, new = _completed(prop, olds.get(name)), _completed(prop, news.get(name))
            self._compare_value(prop, old, new, (*path, name), join(dotted, name))

    def _compare_value(self, prop: Property, old: Any, new: Any, path: Path, dotted: str) -> None:
        alike = self._kind.alike.get(dotted)
        if same(prop, new, old) or (alike is not None and alike(new, old)):
            return
        if prop.form == "object" and prop.properties and isinstance(old, Mapping) and isinstance(new, Mapping):
            self.compare(prop.properties, old, new, path, dotted)
        elif prop.form == "list" and prop.properties and _same_length(old, new):
            for index, (before, after) in enumerate(zip(old, new, strict=True)):
                if isinstance(before, Mapping) and isinstance(after, Mapping):
                    self.compare(prop.properties, before, after, (*path, index), dotted)
                elif before is not after:
                    self._note(prop, before, after, (*path, index))
        elif prop.form == "map" and isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) is UNKNOWN or new.get(key) is UNKNOWN or old.get(key) != new.get(key):
                    self._note(prop, old.get(key), new.get(key), (*path, key))
        else:
            self._note(prop, old, new, path)

    def _note(self, prop: Property, old: Any, new: Any, path: Path) -> None:
        where = property_path(*path)
        self.changes[where] = "add" if old is None else "delete" if new is None else "update"
        if prop.replace or (prop.properties and _forces(prop, old, new)):
            self.replaces.append(where)


def _completed(prop: Property, value: Any) -> Any:
    return prop.default if value is None and prop.default is not None else value


def _same_length(a: Any, b: Any) -> bool:
    return isinstance(a, list) and isinstance(b, list) and len(a) == len(b)


def _forces(prop: Property, old: Any, new: Any) -> bool:
    """Whether a part that appears, disappears or changes as a whole has something in it that forces a replacement."""
    for value in (old, new):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                for name, inner in prop.properties.items():
                    if not is_zero(item.get(name)) and inner.replace:
                        return True
    return False


def difference(kind: Kind, old_inputs: Mapping[str, Any], news: Mapping[str, Any]) -> Diff:
    comparison = _Comparison(kind)
    comparison.compare(kind.properties, old_inputs, news, (), "")
    return Diff(
        changes=comparison.changes,
        replaces=tuple(comparison.replaces),
        delete_before_replace=bool(comparison.replaces) and _goes_first(kind, news),
    )


def _goes_first(kind: Kind, news: Mapping[str, Any]) -> bool:
    """Whether the old resource is deleted before the new one is made, unless the program's options say otherwise.

    The real provider's rule (pulumi-terraform-bridge 3.137, `nameRequiresDeleteBeforeReplace`): where it makes up names
    and the program gave one, renamed or not. Every other type is made anew first, and fails where the old one is in its
    way.
    """
    prop = kind.properties.get(kind.name)
    can_be_made_up = kind.auto_name or (kind.name == "name" and kind.type != _RECORD_SET)
    if prop is None or prop.output or not can_be_made_up:
        return kind.type == _PROJECT_MEMBER
    return kind.name not in news.get(DEFAULTS, ())
