"""Versions of the installed SDK packages: what the engine asks of the plug-ins."""

import importlib.metadata


def sdk_version(package: str = "pulumi") -> str:
    """The version of an installed package, which is the version of the plug-in that its resources ask for."""
    return importlib.metadata.version(package)
