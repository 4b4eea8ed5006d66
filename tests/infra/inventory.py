"""The resources that a stack registers, in a form that a reviewer can read in a diff.

`python -m tests.infra.inventory` (`make inventory`) writes one file for each stack file to infra/inventory/.
A test compares them for equality, so that a forgotten resource fails, and so does one too many.
"""

import json
from pathlib import Path
from typing import Any

import pulumi
import yaml

from infra.settings import StackSettings
from infra.stack import RegionalStack
from tests.infra.recording import Recorded, record

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "infra" / "inventory"
STACKS = ("au", "us", "eu", "staging")


def settings_of(stack: str) -> StackSettings:
    """The settings of a stack file of this repository, read as Pulumi hands them over."""
    config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    return StackSettings.parse(stack, texts)


def recorded_stack(stack: str) -> list[Recorded]:
    settings = settings_of(stack)

    def program() -> None:
        RegionalStack(settings.project_id, settings)

    return record(program, stack)


def without_noise(resource: Recorded) -> dict[str, Any]:
    """Its inputs, less what changes with every commit of the app and is not for a reviewer to read."""
    inputs = {key: value for key, value in resource.inputs.items() if key != "__provider"}
    if "content_hash" in inputs:
        inputs["content_hash"] = "(of app/)"
    if "PRIVATE KEY" in str(inputs.get("secretData")):
        # Made of the mock's name. Still, nobody should have to ask whether a key in the repository is a real one.
        inputs["secretData"] = inputs["secretData"] | {"value": "(a private key)"}
    template = inputs.get("template", {})
    for container in template.get("template", template).get("containers", []):
        for env in container["envs"]:
            if env["name"] == "VALIDIBOT_RELEASE":
                env["value"] = "(of app/)"
    return inputs


def inventory_of(stack: str) -> dict[str, dict[str, Any]]:
    custom = [resource for resource in recorded_stack(stack) if not resource.type.startswith(("validibot:", "pulumi:"))]
    return {f"{r.type} {r.name}": without_noise(r) for r in sorted(custom, key=lambda r: (r.type, r.name))}


def main() -> None:
    INVENTORY.mkdir(exist_ok=True)
    for stack in STACKS:
        resources = inventory_of(stack)
        file = INVENTORY / f"{stack}.json"
        file.write_text(json.dumps(resources, indent=2, sort_keys=True) + "\n")
        pulumi.log.debug(f"{stack}: {len(resources)} resources")
        print(f"{file.relative_to(ROOT)}: {len(resources)} resources")


if __name__ == "__main__":
    main()
