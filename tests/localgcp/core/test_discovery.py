"""Paths find the method that Google's document gives them."""

import pytest

from localgcp import discovery
from localgcp.apis import APIS


@pytest.mark.parametrize(
    ("document", "verb", "path", "method"),
    [
        ("run:v2", "POST", "v2/projects/p/locations/l/services", "projects.locations.services.create"),
        ("run:v2", "POST", "v2/projects/p/locations/l/jobs/migrate:run", "projects.locations.jobs.run"),
        ("run:v2", "GET", "v2/projects/p/locations/l/operations/o", "projects.locations.operations.get"),
        (
            "secretmanager:v1",
            "GET",
            "v1/projects/p/secrets/s/versions/latest:access",
            "projects.secrets.versions.access",
        ),
        ("compute:beta", "POST", "projects/p/targetHttpProxies/t/setUrlMap", "targetHttpProxies.setUrlMap"),
        ("compute:beta", "GET", "projects/p/global/operations/o", "globalOperations.get"),
        ("sqladmin:v1beta4", "DELETE", "sql/v1beta4/projects/p/instances/i/users", "users.delete"),
        ("storage:v1", "GET", "b/bucket/o/a%2Fb", "objects.get"),
        ("storage:v1", "POST", "b/bucket/o/a/rewriteTo/b/other/o/c", "objects.rewrite"),
        ("dns:v1", "POST", "dns/v1/projects/p/managedZones/z/changes", "changes.create"),
    ],
)
def test_a_path_is_routed_to_its_method(document: str, verb: str, path: str, method: str) -> None:
    found = discovery.load(document).route(verb, path)

    assert found is not None
    assert found.id == method


def test_a_path_that_no_method_has_is_not_routed() -> None:
    assert discovery.load("run:v2").route("GET", "v2/projects/p/locations/l/nothing/x") is None
    assert discovery.load("run:v2").route("GET", "v2/projects//locations/l/services/x") is None


def test_path_parameters_are_decoded_after_splitting() -> None:
    method = discovery.load("storage:v1").methods["objects.get"]

    assert method.path_parameters("b/bucket/o/a%2Fb%20c") == {"bucket": "bucket", "object": "a/b c"}


def test_every_api_of_the_table_has_its_documents_installed() -> None:
    documents = {document for api in APIS for document in api.documents.values()}

    assert {name: bool(discovery.load(name).methods) for name in documents} == dict.fromkeys(documents, True)
