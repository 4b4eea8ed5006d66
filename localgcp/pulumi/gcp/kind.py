"""How one resource type is made of REST calls.

A `Kind` is a row: where the collection is, what a resource's id looks like, how bodies differ from the plain mapping.
Types whose life is more than POST, GET, PATCH and DELETE subclass it and override the step that differs. A `Work` is
one operation under way on one resource.
"""

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote

from localgcp.pulumi.gcp.mapping import Body, Encoding, Values, expand, flatten, observed
from localgcp.pulumi.gcp.rest import Rest, RestError, request_id
from localgcp.pulumi.gcp.schema import Properties, properties_of
from localgcp.pulumi.gcp.values import is_zero, relative_link, same
from localgcp.pulumi.provider import UNKNOWN, ProviderError

#: The label by which the provider marks what it manages.
ATTRIBUTION = {"goog-pulumi-provisioned": "true"}


@dataclass(kw_only=True)
class Work:
    """One operation on one resource. `id` is set as soon as the resource exists."""

    rest: Rest
    urn: str
    #: What the resource shall be, completed; for a deletion, what it was.
    plan: Values
    #: The program's inputs now, and at the time of the last operation.
    inputs: Values
    old_inputs: Values = field(default_factory=dict)
    #: The outputs of the last operation.
    state: Values = field(default_factory=dict)
    id: str = ""
    default_project: str = ""
    default_region: str = ""
    #: Labels of every resource: those that the provider's configuration names, and its own mark.
    default_labels: Mapping[str, str] = field(default_factory=dict)
    mark: Mapping[str, str] = field(default_factory=lambda: ATTRIBUTION)
    deadline: float | None = None

    def value(self, name: str) -> Any:
        value = self.plan.get(name)
        return value if value is not None else self.state.get(name)

    @property
    def project(self) -> str:
        project = self.value("project") or self.default_project
        if not project:
            raise ProviderError("no project: set `project` on the resource, gcp:project or GOOGLE_PROJECT")
        return str(project).removeprefix("projects/")

    @property
    def location(self) -> str:
        location = self.value("location") or self.value("region") or self.default_region
        if not location:
            raise ProviderError("no region: set it on the resource, gcp:region or GOOGLE_REGION")
        return str(location).rpartition("/")[2]

    def call(self, method: str, api: str, path: str, **arguments: Any) -> dict[str, Any]:
        return self.rest.call(method, api, path, deadline=self.deadline, **arguments)

    def rest_get(self, api: str, path: str, query: Mapping[str, str] | None = None) -> Body | None:
        """What is at a path; None when nothing is."""
        try:
            return self.call("GET", api, path, query=query)
        except RestError as error:
            if error.status == 404:
                return None
            raise

    def finish(self, api: str, answer: dict[str, Any]) -> dict[str, Any]:
        project = str(self.value("project") or self.default_project).removeprefix("projects/")
        return self.rest.finish(api, answer, project=project, deadline=self.deadline)

    def pause(self) -> None:
        """Wait a little between two looks at something that is not finished; the error when the time is over."""
        self.rest.pause(self.deadline)

    def creation_id(self, method: str, path: str, body: Any) -> str:
        """The same for the same creation, so that its repetition after a lost answer creates nothing twice."""
        return request_id(self.urn, method, path, json.dumps(body, sort_keys=True, default=str))


_PLAIN = Encoding()


@dataclass(frozen=True, kw_only=True)
class Kind:
    type: str
    api: str
    #: The collection below the API's address: `projects/{project}/locations/{location}/queues`.
    collection: str
    #: The property that is the resource's last path segment.
    name: str = "name"
    #: Whether a missing name is made up from the resource's name in the program.
    auto_name: bool = True
    #: The longest name, and what stands between the words of a made-up one.
    longest_name: int = 63
    name_joint: str = "-"
    #: Whether a name given as a full path is cut to its last segment.
    short_name: bool = True
    #: What ids look like when they are not collection/name.
    id_form: str = ""
    #: The query parameter of the creating call that holds the name.
    name_query: str = ""
    #: How the name stands in the creating body: absent (it is only in the query), short, or the full path.
    name_in_body: Literal["", "short", "full"] = ""
    #: The field of the answer that names a resource whose name the API chooses.
    server_name: str = ""
    update_method: Literal["PATCH", "PUT", ""] = "PATCH"
    #: The fields of an update mask, in the order in which the provider writes them; None sends no mask.
    mask: Sequence[str] | None = None
    #: Properties that force a replacement and are sent in updates all the same.
    sent_on_update: frozenset[str] = frozenset()
    encoding: Encoding = _PLAIN
    #: As `encoding`, for updates, where they differ.
    update_encoding: Encoding | None = None
    decoding: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    #: How two values of a property path are compared, where the usual way is not enough.
    alike: Mapping[str, Callable[[Any, Any], bool]] = field(default_factory=dict)
    attributed: bool = True
    delete_query: Mapping[str, str] = field(default_factory=dict)
    #: Groups of properties of which a program sets one at most.
    conflicts: Sequence[tuple[str, ...]] = ()

    @cached_property
    def properties(self) -> Properties:
        return properties_of(self.type)

    @property
    def label(self) -> str:
        """What error messages call it: `Bucket`."""
        return self.type.rpartition(":")[2]

    @property
    def has_labels(self) -> bool:
        return "labels" in self.properties and "effectiveLabels" in self.properties

    # Names and paths

    def values(self, work: Work) -> dict[str, str]:
        """What the templates of paths and ids are filled with."""
        values = {}
        if "{project}" in self.collection + self.id_form:
            values["project"] = work.project
        if "{location}" in self.collection + self.id_form:
            values["location"] = work.location
        for name, prop in self.properties.items():
            value = work.value(name)
            if prop.form == "string" and isinstance(value, str) and name not in ("location", "region"):
                values.setdefault(name, value)
        if self.name in values and not self.server_name:
            values["name"] = values[self.name].rpartition("/")[2] if self.short_name else values[self.name]
        return values

    def collection_path(self, work: Work) -> str:
        return self.collection.format_map(self.values(work))

    def path(self, work: Work) -> str:
        """The resource below the API's address."""
        if self.server_name:
            return work.id
        return f"{self.collection_path(work)}/{quote(self.values(work)['name'], safe='@:._-~')}"

    def identify(self, work: Work) -> str:
        """The Pulumi id."""
        values = self.values(work)
        return (self.id_form or self.collection + "/{name}").format_map(values)

    def parse_id(self, id: str) -> Values:
        """The properties that an import id tells: the whole id, or its variable parts alone, with or without the place.

        What a short id leaves out is the provider's own project and region.
        """
        form = self.id_form or self.collection + "/{name}"
        names = _placeholders(form)
        shorter = [names, [name for name in names if name != "project"]]
        shorter.append([name for name in shorter[1] if name != "location"])
        for candidate in (form, *("/".join(f"{{{name}}}" for name in each) for each in shorter)):
            if match := _id_pattern(candidate, whole=candidate == form).fullmatch(id):
                return self._properties_of_id(match.groupdict())
        raise ProviderError(f"{id!r} is no id of a {self.label}: expected {form}")

    def _properties_of_id(self, parts: Values) -> Values:
        found = {key: value for key, value in parts.items() if key in self.properties or key == "name"}
        if "name" in found and self.name != "name":
            found[self.name] = found.pop("name")
        if "location" in parts and "region" in self.properties:
            found["region"] = parts["location"]
        return found

    # Bodies

    def own_labels(self, work: Work) -> Values:
        """The labels that the provider keeps on the resource: the program's, the configured ones, and its mark."""
        mark = work.mark if self.attributed else {}
        return {**work.default_labels, **(work.inputs.get("labels") or {}), **mark}

    def labels(self, work: Work) -> Values:
        """The labels that the resource shall have: the provider's, and those somebody else set."""
        before = {*(work.state.get("labels") or {}), *(work.state.get("pulumiLabels") or {})}
        there = work.state.get("effectiveLabels") or {}
        return {**{name: value for name, value in there.items() if name not in before}, **self.own_labels(work)}

    def encode(self, work: Work, *, updating: bool) -> Body:
        """The body of the creating or updating call."""
        encoding = (self.update_encoding or self.encoding) if updating else self.encoding
        values = dict(work.plan)
        if updating and self.update_method == "PATCH":
            values = {
                name: value
                for name, value in values.items()
                if not self.properties[name].replace or name in self.sent_on_update
            }
        if not self.server_name:
            values.pop(self.name, None)
        if self.has_labels:
            values["labels"] = self.labels(work)
        body = expand(self.properties, values, encoding)
        if self.name_in_body and not (updating and self.update_method == "PATCH"):
            body["name"] = self.path(work) if self.name_in_body == "full" else self.values(work)["name"]
        return body

    def decode(self, work: Work, body: Mapping[str, Any]) -> Values:
        """The output properties that an answer shows."""
        live = flatten(self.properties, body, self.decoding)
        if self.has_labels:
            effective = live.get("labels") or {}
            wanted = work.inputs.get("labels") or {}
            live["effectiveLabels"] = effective
            live["pulumiLabels"] = self.own_labels(work)
            # Without inputs, this is an import: everything but the provider's own mark is the program's.
            mine = wanted if work.inputs else effective.keys() - ATTRIBUTION.keys() - work.default_labels.keys()
            live["labels"] = {key: effective[key] for key in mine if key in effective}
        if "annotations" in live and "effectiveAnnotations" in self.properties:
            live["effectiveAnnotations"] = live["annotations"]
            if work.inputs:
                wanted = work.inputs.get("annotations") or {}
                live["annotations"] = {key: value for key, value in live["annotations"].items() if key in wanted}
        if not self.server_name and self.name in self.properties:
            live[self.name] = self.values(work)["name"] if self.short_name else work.value(self.name)
        for part in _placeholders(self.collection + self.id_form):
            if part in self.properties and work.value(part) is not None:
                live.setdefault(part, work.value(part))
        if "project" in self.properties and "{project}" in self.collection:
            live["project"] = work.project
        for place in ("location", "region"):
            if place in self.properties and "{location}" in self.collection + self.id_form:
                live[place] = work.location
        return live

    # Life

    def create(self, work: Work) -> Body | None:
        """Create it and set `work.id`; the live resource, when an answer has shown it already."""
        body = self.encode(work, updating=False)
        query = {self.name_query: self.values(work)["name"]} if self.name_query else {}
        answer = self.post(work, self.collection_path(work), body, query=query)
        if not self.server_name:
            work.id = self.identify(work)
        answer = work.finish(self.api, answer)
        if self.server_name:
            self.adopt_name(work, answer)
        return None

    def post(self, work: Work, path: str, body: Body | None, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A creating call: it may be repeated, because the API recognises it."""
        return work.call(
            "POST", self.api, path, body=body, query=query, request_id=work.creation_id("POST", path, body)
        )

    def adopt_name(self, work: Work, answer: Mapping[str, Any]) -> None:
        """Take the id that the API has chosen."""
        work.id = str(answer[self.server_name])

    def get(self, work: Work) -> Body | None:
        """The live resource, None when there is none."""
        return work.rest_get(self.api, self.path(work))

    def outputs(self, work: Work, body: Body | None = None) -> Values | None:
        """The live resource as properties; None when there is none."""
        body = self.get(work) if body is None else body
        return None if body is None or self.is_gone(body) else self.decode(work, body)

    def is_gone(self, body: Body) -> bool:
        """Whether an answer shows a resource that is deleted already."""
        return False

    def update(self, work: Work) -> Body | None:
        """Make it what the plan says; the live resource, when an answer has shown it already."""
        if not self.changed_fields(work) or not self.update_method:
            return None
        body = self.encode(work, updating=True)
        query = {}
        if self.mask is not None:
            query["updateMask"] = ",".join(self.update_mask(work))
        answer = work.call(self.update_method, self.api, self.path(work), body=body, query=query)
        work.finish(self.api, answer)
        return None

    def update_mask(self, work: Work) -> list[str]:
        changed = self.changed_fields(work)
        order = list(self.mask or ())
        known = [field for field in order if field in changed]
        return (
            known + sorted(changed - set(order) - {"labels"}) + (["labels"] if "labels" in changed - set(order) else [])
        )

    def changed_fields(self, work: Work) -> set[str]:
        """The REST fields that the program now sets otherwise."""
        changed = set()
        for name, prop in self.properties.items():
            if prop.output or prop.rest is None:
                continue
            old, new = work.old_inputs.get(name), work.inputs.get(name)
            alike = self.alike.get(name)
            if not same(prop, new, old) and not (alike and alike(new, old)):
                changed.add(prop.rest[0])
        if self.has_labels and self.has_changed(work, "labels"):
            changed.add("labels")
        return changed

    def has_changed(self, work: Work, name: str) -> bool:
        """Whether the program, or for labels the provider's configuration, now sets a property otherwise."""
        is_labels = name == "labels" and self.has_labels and bool(work.state)
        if is_labels and default_labels_differ(work.default_labels, work.old_inputs, work.inputs, work.state):
            return True
        return not same(self.properties[name], work.inputs.get(name), work.old_inputs.get(name))

    def delete(self, work: Work) -> None:
        answer = work.call("DELETE", self.api, self.path(work), query=dict(self.delete_query))
        work.finish(self.api, answer)

    def refusal_to_delete(self, work: Work) -> str | None:
        """Why a deletion is refused before any request; None when it is not."""
        if work.value("deletionProtection") is True:
            return (
                f"cannot destroy {self.label.lower()} without setting deletionProtection=False and running `pulumi up`"
            )
        return None

    def observe(self, work: Work, live: Values) -> Values:
        """The program's inputs as they would have to be written to describe what is live."""
        return observed(self.properties, work.inputs, live, self.alike)

    # What a plan tells

    def check(self, inputs: Values) -> list[tuple[str, str]]:
        """(property, reason) of what only this type can find wrong."""
        failures = []
        for names in self.conflicts:
            given = [name for name in names if not is_zero(inputs.get(name)) or inputs.get(name) is UNKNOWN]
            if len(given) > 1:
                failures.append((given[1], f"conflicts with {given[0]}: only one of {', '.join(names)} can be set"))
        return failures


def default_labels_differ(
    defaults: Mapping[str, str], olds: Mapping[str, Any], news: Mapping[str, Any], state: Mapping[str, Any]
) -> bool:
    """Whether labels differ that no program sets: the configured ones, and those that were configured before."""
    own = {*ATTRIBUTION}
    for inputs in (olds, news):
        labels = inputs.get("labels")
        own |= labels.keys() if isinstance(labels, Mapping) else set()
    there = state.get("effectiveLabels") or {}
    if any(there.get(name) != value for name, value in defaults.items() if name not in own):
        return True
    return any(name not in own and name not in defaults for name in state.get("pulumiLabels") or {})


def _placeholders(form: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(form) if name]


def _id_pattern(form: str, *, whole: bool) -> re.Pattern[str]:
    """What an id of a form looks like. In a whole one, what it begins with may be a path, and so may the name."""
    pattern = ""
    for literal, name, _, _ in string.Formatter().parse(form):
        is_first = not pattern and not literal
        pattern += re.escape(literal)
        if name:
            is_path = whole and (name == "name" or (is_first and name != "project"))
            pattern += f"(?P<{name}>{'.+' if is_path else '[^/]+'})"
    return re.compile(pattern)


def project_number(work: Work, project: str | None = None) -> str:
    """The number of a project: the resource's own, unless another is named."""
    found = work.call("GET", "cloudresourcemanager", f"projects/{project or work.project}")
    return str(found["projectNumber"])


def global_network(value: Any, project: str) -> Any:
    """A network as `projects/<project>/global/networks/<name>`, whatever form it was given in."""
    if not isinstance(value, str) or not value:
        return value
    relative = relative_link(value)
    return relative if "/" in relative else f"projects/{project}/global/networks/{relative}"
