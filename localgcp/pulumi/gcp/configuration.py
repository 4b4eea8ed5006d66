"""The provider's configuration: `gcp:project` and its like, or the arguments of an explicit `gcp.Provider`."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localgcp.pulumi.provider import UNKNOWN, CheckFailure

_USED = frozenset(
    {"project", "region", "accessToken", "pollInterval", "defaultLabels", "addPulumiAttributionLabel", "deletionPolicy"}
)
#: What changes nothing here: quotas, batches and time limits of requests, headers, the place of types we do not have,
#: which of Google's addresses is called; the real provider's own warnings; and `credentials`, over which the token of
#: the environment wins in the real provider, too.
_WITHOUT_EFFECT = frozenset(
    {"zone", "scopes", "batching", "billingProject", "userProjectOverride", "requestReason", "requestTimeout"}
    | {"universeDomain", "disableGooglePartnerName", "googlePartnerName", "pulumiAttributionLabelAdditionStrategy"}
    | {"credentials", "skipRegionValidation", "preferGlobalEndpoints", "preferRegionalEndpoints"}
    | {"disableGlobalProjectWarning"}
)
#: What must not be passed over in silence, because resources would be made by somebody else.
_REFUSED = frozenset({"impersonateServiceAccount", "impersonateServiceAccountDelegates", "externalCredentials"})
_ENDPOINT = "CustomEndpoint"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    project: str = ""
    region: str = ""
    access_token: str = ""
    poll_seconds: float | None = None
    #: Labels of every resource that can have some.
    default_labels: Mapping[str, str] = field(default_factory=dict)
    #: Whether resources carry the label by which the provider marks what it manages.
    attributed: bool = True
    #: For resources that set none.
    deletion_policy: str = ""
    #: By the variable that means the same, `GOOGLE_STORAGE_CUSTOM_ENDPOINT`.
    endpoints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> "Configuration":
        """What is configured; values that a preview does not know yet count as not set."""
        known = {name: value for name, value in variables.items() if value is not UNKNOWN}
        return cls(
            project=str(known.get("project") or ""),
            region=str(known.get("region") or ""),
            access_token=str(known.get("accessToken") or ""),
            poll_seconds=_seconds(known.get("pollInterval")),
            default_labels=_labels(known.get("defaultLabels")) or {},
            attributed=str(known.get("addPulumiAttributionLabel", "true")).lower() != "false",
            deletion_policy=str(known.get("deletionPolicy") or ""),
            endpoints={
                _variable(name): str(value) for name, value in known.items() if name.endswith(_ENDPOINT) and value
            },
        )


def check(variables: Mapping[str, Any]) -> list[CheckFailure]:
    """What is wrong with a configuration."""
    failures = []
    for name, value in variables.items():
        if name.startswith("_") or value is UNKNOWN:
            continue
        if name in _REFUSED:
            reason = (
                "is not there in the offline provider: set GOOGLE_OAUTH_ACCESS_TOKEN to a token of the account instead"
            )
            failures.append(CheckFailure(name, reason))
        elif name not in _USED | _WITHOUT_EFFECT and not name.endswith(_ENDPOINT):
            close = difflib.get_close_matches(name, sorted(_USED | _WITHOUT_EFFECT), n=1)
            hint = f"; did you mean gcp:{close[0]}?" if close else ""
            failures.append(CheckFailure(name, f"gcp:{name} is no setting of the provider{hint}"))
        elif name == "pollInterval" and _seconds(value) is None:
            failures.append(CheckFailure(name, f"{value!r} is no duration: expected seconds such as 1s"))
        elif name == "defaultLabels" and _labels(value) is None:
            failures.append(CheckFailure(name, "must be an object of strings"))
    return failures


def _seconds(duration: Any) -> float | None:
    try:
        return float(str(duration).removesuffix("s"))
    except ValueError:
        return None


def _labels(value: Any) -> dict[str, str] | None:
    """Labels as they arrive: objects of the configuration are JSON in a text."""
    try:
        labels = json.loads(value) if isinstance(value, str) and value else value
    except ValueError:
        return None
    if not isinstance(labels, Mapping | None):
        return None
    return {str(name): str(text) for name, text in (labels or {}).items() if text is not UNKNOWN}


def _variable(name: str) -> str:
    """`cloudRunV2CustomEndpoint` as `GOOGLE_CLOUD_RUN_V2_CUSTOM_ENDPOINT`."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
    return f"GOOGLE_{words.upper()}"
