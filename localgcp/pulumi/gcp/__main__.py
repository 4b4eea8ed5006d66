"""`python -m localgcp.pulumi.gcp`: the provider as the plugin process that the engine starts."""

from localgcp.pulumi.gcp.provider import GcpProvider
from localgcp.pulumi.provider_server import serve

if __name__ == "__main__":
    serve(GcpProvider())
