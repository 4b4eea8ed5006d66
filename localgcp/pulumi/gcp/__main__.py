"""`python -m localgcp.pulumi.gcp`: the provider as the plug-in process that the engine starts."""

from typing import NoReturn

from localgcp.pulumi.gcp.provider import GcpProvider
from localgcp.pulumi.provider_server import serve


def main() -> NoReturn:
    serve(GcpProvider())


if __name__ == "__main__":
    main()
