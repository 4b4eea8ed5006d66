"""The `gcp` provider: check, diff, preview, create, read, update and delete for every kind."""

import dataclasses
import os
import threading
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from localgcp.pulumi.gcp.checking import DEFAULTS, checked
from localgcp.pulumi.gcp.configuration import Configuration
from localgcp.pulumi.gcp.configuration import check as check_configuration
from localgcp.pulumi.gcp.differences import difference
from localgcp.pulumi.gcp.endpoints import Endpoints
from localgcp.pulumi.gcp.functions import Question, call_function
from localgcp.pulumi.gcp.kind import ATTRIBUTION, Kind, Work, default_labels_differ
from localgcp.pulumi.gcp.kinds import KINDS
from localgcp.pulumi.gcp.mapping import Values, mentioned, planned, settable, with_defaults
from localgcp.pulumi.gcp.package_schema import package_schema
from localgcp.pulumi.gcp.rest import Rest, RestError
from localgcp.pulumi.gcp.schema import Properties
from localgcp.pulumi.gcp.values import reveal
from localgcp.pulumi.provider import (
    UNKNOWN,
    BaseProvider,
    CheckFailure,
    Diff,
    Inputs,
    Outputs,
    PartialFailure,
    ProviderError,
    ReadResult,
    Secret,
    contains_unknown,
)

#: How long an operation may take when the program sets no timeout.
_PATIENCE_SECONDS = 1800.0


class GcpProvider(BaseProvider):
    """One per engine process. Methods may run in several threads."""

    name = "gcp"

    def __init__(self, *, rest: Rest | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._rest = rest
        self._rest_lock = threading.Lock()
        #: (urn, id) of what this process has created.
        self._made: set[tuple[str, str]] = set()
        self._configuration = Configuration()
        self._project = self._setting(
            "GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"
        )
        self._region = self._setting("GOOGLE_REGION", "GCLOUD_REGION", "CLOUDSDK_COMPUTE_REGION")
        try:
            self.version = metadata.version("pulumi-gcp")
        except metadata.PackageNotFoundError:
            self.version = "0.0.0"

    def _setting(self, *names: str) -> str:
        return next((self._environment[name] for name in names if self._environment.get(name)), "")

    @property
    def rest(self) -> Rest:
        with self._rest_lock:
            if self._rest is None:
                configuration = self._configuration
                self._rest = Rest(
                    endpoints=Endpoints({**self._environment, **configuration.endpoints}),
                    poll_seconds=configuration.poll_seconds,
                    access_token=configuration.access_token,
                )
            return self._rest

    def schema(self) -> str:
        return package_schema(self.version)

    # Configuration

    def check_config(self, variables: Inputs) -> list[CheckFailure]:
        return check_configuration(variables)

    def configure(self, variables: Inputs) -> None:
        self._configuration = Configuration.of(variables)
        self._project = self._configuration.project or self._project
        self._region = self._configuration.region or self._region

    def cancel(self) -> None:
        if self._rest is not None:
            self._rest.cancel()

    # Plans

    def check(
        self, type: str, urn: str, *, olds: Inputs | None, news: Inputs, random_seed: bytes
    ) -> tuple[Inputs, list[CheckFailure]]:
        kind = KINDS.get(type)
        if kind is None:
            reason = f"{type} is not known to this provider, which has {len(KINDS)} types; the real one has all"
            return news, [CheckFailure("", reason)]
        inputs, failures = checked(kind, olds, news, random_seed, _name_of(urn))
        return inputs, list(failures)

    def diff(
        self,
        type: str,
        urn: str,
        id: str,
        *,
        old_inputs: Inputs,
        old_outputs: Outputs,
        news: Inputs,
    ) -> Diff:
        kind = _kind(type)
        olds = mentioned(kind.properties, old_inputs, news, old_inputs.get(DEFAULTS) or ())
        for name, default in (("project", self._project), ("region", self._region), ("location", self._region)):
            # A place that neither the program nor the provider's configuration changes is no difference; one that the
            # configuration changes is.
            if name in kind.properties and old_outputs.get(name) is not None:
                if news.get(name) is None:
                    news = {**news, name: default or old_outputs[name]}
                if olds.get(name) is None:
                    olds[name] = old_outputs[name]
        found = difference(kind, olds, news)
        defaults = self._configuration.default_labels
        if kind.has_labels and default_labels_differ(defaults, olds, news, old_outputs):
            return dataclasses.replace(found, changes={**found.changes, "pulumiLabels": "update"})
        return found

    # Data sources

    def invoke(self, token: str, arguments: Inputs, *, preview: bool) -> tuple[Outputs, list[CheckFailure]]:
        question = Question(
            rest=self.rest,
            arguments=reveal(arguments),
            default_project=self._project,
            default_region=self._region,
            default_labels=self._configuration.default_labels,
        )
        return call_function(token, question), []

    # Life

    def _work(self, urn: str, inputs: Inputs, *, timeout_seconds: float | None, **rest: Any) -> Work:
        plain = {name: value for name, value in reveal(inputs).items() if name != DEFAULTS}
        deadline = time.monotonic() + (timeout_seconds or _PATIENCE_SECONDS)
        return Work(
            rest=self.rest,
            urn=urn,
            inputs=plain,
            default_project=self._project,
            default_region=self._region,
            default_labels=self._configuration.default_labels,
            mark=ATTRIBUTION if self._configuration.attributed else {},
            deadline=deadline,
            **rest,
        )

    def create(
        self, type: str, urn: str, *, inputs: Inputs, preview: bool, timeout_seconds: float | None
    ) -> tuple[str, Outputs]:
        kind = _kind(type)
        if preview:
            return "", self._expected(kind, inputs, {})
        work = self._work(urn, inputs, timeout_seconds=timeout_seconds, plan={})
        work.plan = planned(kind.properties, with_defaults(kind.properties, work.inputs), {}, {})
        try:
            body = kind.create(work)
            outputs = self._outputs(kind, work, body)
        except ProviderError as error:
            reason = _explained("creating", kind, urn, error)
            if not work.id:
                raise ProviderError(reason) from error
            outputs = _concealed(kind.properties, {**work.inputs, **work.state})
            raise PartialFailure(work.id, outputs, [reason], _begun(kind, inputs)) from error
        if outputs is None:
            raise ProviderError(f"{_name_of(urn)}: the new {kind.label} is not there: it was deleted at once")
        self._made.add((urn, work.id))
        return work.id, outputs

    def _expected(self, kind: Kind, inputs: Inputs, state: Outputs) -> Outputs:
        """What a preview can say of the outputs: the inputs, what is known already, and that the rest will be known."""
        expected: Outputs = {name: value for name, value in inputs.items() if name in kind.properties}
        for name, prop in kind.properties.items():
            if expected.get(name) is not None:
                continue
            if name in state and not contains_unknown(state[name]):
                expected[name] = state[name]
            elif prop.output or (not state and prop.rest is not None):
                expected[name] = UNKNOWN
        if kind.has_labels:
            mark = ATTRIBUTION if kind.attributed and self._configuration.attributed else {}
            labels = inputs.get("labels") or {}
            defaults = self._configuration.default_labels
            expected["pulumiLabels"] = {**defaults, **labels, **mark} if labels is not UNKNOWN else UNKNOWN
            if not state:
                expected["effectiveLabels"] = expected["pulumiLabels"]
        return expected

    def _outputs(self, kind: Kind, work: Work, body: dict[str, Any] | None = None) -> Outputs | None:
        """The state: what is live, and what only the program knows."""
        live = kind.outputs(work, body)
        if live is None:
            return None
        live = {name: value for name, value in live.items() if value is not None}
        own = {
            name: value
            for name, value in work.inputs.items()
            if name in kind.properties and (kind.properties[name].rest is None or kind.properties[name].secret)
        }
        defaults = {
            name: prop.default
            for name, prop in kind.properties.items()
            if prop.rest is None and prop.default is not None and not prop.output
        }
        return _concealed(kind.properties, {**defaults, **own, **live, **_secrets(kind.properties, work.inputs, live)})

    def read(
        self, type: str, urn: str, id: str, *, inputs: Inputs | None, outputs: Outputs | None
    ) -> ReadResult | None:
        kind = _kind(type)
        state = reveal(outputs or {})
        work = self._work(urn, inputs or {}, timeout_seconds=None, plan={}, state=state, id=id)
        imported = not inputs
        work.plan = {**state, **work.inputs} if not imported else {**state, **kind.parse_id(id)}
        try:
            found = self._outputs(kind, work)
        except ProviderError as error:
            raise ProviderError(_explained("reading", kind, urn, error)) from error
        if found is None:
            return None
        if "pulumiLabels" in state:
            # What was set, not what the configuration of today would set: that is a difference.
            found["pulumiLabels"] = state["pulumiLabels"]
        live = reveal(found)
        if imported:
            if not kind.server_name:
                # Another form of the id than the one that a creation gives.
                work.id = kind.identify(work)
            seen = settable(kind.properties, live)
            seen = {name: value for name, value in seen.items() if value != kind.properties[name].default}
        else:
            seen = kind.observe(work, live)
        if inputs and DEFAULTS in inputs:
            seen[DEFAULTS] = inputs[DEFAULTS]
        elif imported:
            # Whether a program wants all this is not known yet: what it does not mention is the API's choice.
            seen[DEFAULTS] = sorted(seen)
        return ReadResult(id=work.id, inputs=seen, outputs=found)

    def update(
        self,
        type: str,
        urn: str,
        id: str,
        *,
        old_inputs: Inputs,
        old_outputs: Outputs,
        news: Inputs,
        preview: bool,
        timeout_seconds: float | None,
    ) -> Outputs:
        kind = _kind(type)
        if preview:
            return self._expected(kind, news, old_outputs)
        state = reveal(old_outputs)
        olds = {name: value for name, value in reveal(old_inputs).items() if name != DEFAULTS}
        work = self._work(urn, news, timeout_seconds=timeout_seconds, plan={}, state=state, old_inputs=olds, id=id)
        work.plan = planned(kind.properties, with_defaults(kind.properties, work.inputs), olds, state)
        try:
            body = kind.update(work)
            outputs = self._outputs(kind, work, body)
        except ProviderError as error:
            reason = _explained("updating", kind, urn, error)
            raise PartialFailure(id, old_outputs, [reason], old_inputs) from error
        if outputs is None:
            raise ProviderError(f"{_name_of(urn)}: the {kind.label} {id} is gone: run `pulumi refresh`")
        return outputs

    def delete(
        self, type: str, urn: str, id: str, *, inputs: Inputs, outputs: Outputs, timeout_seconds: float | None
    ) -> None:
        kind = _kind(type)
        if (urn, id) in self._made:
            # A replacement that the engine was told to make (`--target-replace`, `state taint`) comes before the
            # deletion. Under the same name, the API has answered with what was there: deleting it would delete both.
            return
        state = reveal(outputs)
        work = self._work(urn, inputs, timeout_seconds=timeout_seconds, plan={}, state=state, id=id)
        work.plan = {**state, **work.inputs}
        policy = work.value("deletionPolicy") or self._configuration.deletion_policy
        if policy == "ABANDON":
            return
        if policy == "PREVENT":
            raise ProviderError(f"{_name_of(urn)}: deletionPolicy PREVENT forbids to delete the {kind.label}")
        if refusal := kind.refusal_to_delete(work):
            raise ProviderError(f"{_name_of(urn)}: {refusal}")
        try:
            kind.delete(work)
        except RestError as error:
            if error.status != 404:
                raise ProviderError(_explained("deleting", kind, urn, error)) from error
        except ProviderError as error:
            raise ProviderError(_explained("deleting", kind, urn, error)) from error


def _kind(type: str) -> Kind:
    try:
        return KINDS[type]
    except KeyError:
        raise ProviderError(f"{type} is not known to this provider") from None


def _name_of(urn: str) -> str:
    return urn.rpartition("::")[2]


def _explained(doing: str, kind: Kind, urn: str, error: Exception) -> str:
    return f"{_name_of(urn)}: Error {doing} {kind.label}: {error}"


def _begun(kind: Kind, inputs: Inputs) -> Inputs:
    """The inputs of a creation that failed half-way, for the state: those that would force a replacement.

    The next `up` finds all the others missing and sets them once more.
    """
    return {
        name: value
        for name, value in inputs.items()
        if name not in kind.properties
        or name == kind.name
        or kind.properties[name].rest is None
        or kind.properties[name].replace
        or difference(kind, {}, {name: value}).replaces
    }


def _secrets(props: Properties, inputs: Mapping[str, Any], live: Mapping[str, Any]) -> Values:
    """Blocks of the state with the secrets that the program put in and no API answers."""
    result: Values = {}
    for name, value in inputs.items():
        prop = props.get(name)
        if prop is None or prop.form != "object" or not isinstance(value, Mapping) or not prop.properties:
            continue
        hidden = {key: item for key, item in value.items() if key in prop.properties and prop.properties[key].secret}
        if hidden:
            result[name] = {**(live.get(name) or {}), **hidden}
    return result


def _concealed(props: Properties, values: Values) -> Values:
    """The values with those that are secret by nature wrapped."""
    result: Values = {}
    for name, value in values.items():
        prop = props.get(name)
        if prop is not None and prop.secret and value:
            result[name] = Secret(value)
        elif prop is not None and prop.form == "object" and prop.properties and isinstance(value, Mapping):
            result[name] = _concealed(prop.properties, dict(value))
        else:
            result[name] = value
    return result
