"""What differs between the inputs of the last operation and the ones wanted now."""

from collections.abc import Mapping
from typing import Any

from localgcp.pulumi.gcp.kind import Kind
from localgcp.pulumi.gcp.mapping import join
from localgcp.pulumi.gcp.schema import Properties, Property
from localgcp.pulumi.gcp.values import is_zero, same
from localgcp.pulumi.provider import UNKNOWN, Change, Diff, property_path

Path = tuple[str | int, ...]


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
        delete_before_replace=bool(comparison.replaces) and _in_its_own_way(kind, old_inputs, news),
    )


def _in_its_own_way(kind: Kind, old_inputs: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the new resource would have the old one's name, so that the old one has to go first."""
    if kind.server_name:
        return False
    identity = {"project", "location", "region", kind.name, *_placeholders(kind.collection + kind.id_form)}
    names = [name for name in identity if name in kind.properties]
    return all(
        news.get(name) is not UNKNOWN and same(kind.properties[name], news.get(name), old_inputs.get(name))
        for name in names
    )


def _placeholders(form: str) -> set[str]:
    return {part.partition("}")[0] for part in form.split("{")[1:]} - {"name"}
