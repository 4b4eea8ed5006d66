"""Settings -> RegionalStack -> exports."""

import pulumi

from infra.guardrails import Guardrails
from infra.settings import StackSettings
from infra.stack import RegionalStack


def main() -> None:
    settings = StackSettings.from_pulumi()
    Guardrails(settings).register()
    stack = RegionalStack(settings.project_id, settings)
    for name, value in stack.exports.items():
        pulumi.export(name, value)
