"""The program that is written for imported resources."""

import pytest

from localgcp.pulumi.imported_program import NotUnderstood, python_name, python_program

DESCRIPTION = """
package gcp {
    baseProviderName = "gcp"
    baseProviderVersion = "10.2.0"
}

resource mediaBucket "gcp:storage/bucket:Bucket" {
    __logicalName = "media-bucket"
    labels ={
"app.kubernetes.io/name" = "x"}
    lifecycleRules =[{
            action ={
type = "Delete"},
            condition ={
age = 3}
        }]
    location = "US"
    defaultEventBasedHold = false
options {
protect =true
ignoreChanges = [labels]
}
}

resource password "random:index/randomPassword:RandomPassword" {
    length = 12
    special = null
    keepers = { "a\\"b" = "say \\"h\\u00e9\\" to $${name}\\n" }
}

resource version "gcp:secretmanager/secretVersion:SecretVersion" {
    secret = mediaBucket.selfLink
    secretData = secret("hunter2")
    options {
        parent = mediaBucket
    }
}
"""

PROGRAM = """\
import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

mediaBucket = gcp.storage.Bucket(
    "media-bucket",
    labels={
        "app.kubernetes.io/name": "x",
    },
    lifecycle_rules=[
        {
            "action": {
                "type": "Delete",
            },
            "condition": {
                "age": 3,
            },
        },
    ],
    location="US",
    default_event_based_hold=False,
    opts=pulumi.ResourceOptions(protect=True, ignore_changes=[
        "labels",
    ]),
)

password = random.RandomPassword(
    "password",
    length=12,
    special=None,
    keepers={
        "a\\"b": "say \\"hé\\" to ${name}\\n",
    },
)

version = gcp.secretmanager.SecretVersion(
    "version",
    secret=mediaBucket.self_link,
    secret_data=pulumi.Output.secret("hunter2"),
    opts=pulumi.ResourceOptions(parent=mediaBucket),
)
"""


def test_an_import_becomes_a_program() -> None:
    assert python_program({"anonymous.pp": DESCRIPTION}) == PROGRAM
    compile(PROGRAM, "program", "exec")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ('"${other.name}-x"', "the template"),
        ("toJSON({})", "the function toJSON"),
        ("a ? b : c", r"'\? b : c"),
        ("[1", "'}'"),
    ],
)
def test_what_no_import_holds_is_refused(value: str, what: str) -> None:
    text = f'resource r "gcp:storage/bucket:Bucket" {{\nlocation = {value}\n}}\n'
    with pytest.raises(NotUnderstood, match=what):
        python_program({"anonymous.pp": text})


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("ipCidrRange", "ip_cidr_range"),
        ("oauth2ClientSecretSha256", "oauth2_client_secret_sha256"),
        ("privateIpv6GoogleAccess", "private_ipv6_google_access"),
        ("from", "from_"),
        ("location", "location"),
    ],
)
def test_names_are_written_as_the_sdks_do(name: str, python: str) -> None:
    assert python_name(name) == python
