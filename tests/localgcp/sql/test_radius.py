"""The responder, against packets that are not Postgres': noise must neither log in nor take it down."""

import hashlib
import struct

import pytest

from localgcp.sql.radius import ACCESS_ACCEPT, ACCESS_REJECT, AccessRequest, answer, decrypt, parse

SECRET = b"shared secret"
AUTHENTICATOR = bytes(range(16))
TOKEN = "ya29.l." + "x" * 43


def encrypted(password: str, secret: bytes = SECRET) -> bytes:
    clear = password.encode() + b"\0" * (-len(password.encode()) % 16)
    result, previous = b"", AUTHENTICATOR
    for start in range(0, len(clear), 16):
        pad = hashlib.md5(secret + previous).digest()  # noqa: S324 (RFC 2865)
        previous = bytes(a ^ b for a, b in zip(clear[start : start + 16], pad, strict=True))
        result += previous
    return result


def packet(*attributes: tuple[int, bytes], code: int = 1) -> bytes:
    body = b"".join(struct.pack("!BB", kind, len(value) + 2) + value for kind, value in attributes)
    return struct.pack("!BBH16s", code, 7, 20 + len(body), AUTHENTICATOR) + body


def test_a_request_gives_back_the_token_under_its_own_secret_and_noise_under_another() -> None:
    request = parse(packet((1, b"web@p.iam"), (2, encrypted(TOKEN)), (32, b"p:l:pg")))

    assert (request.user, request.instance) == ("web@p.iam", "p:l:pg")
    assert decrypt(request, SECRET) == TOKEN
    assert decrypt(request, b"another secret") != TOKEN


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\x01\x02",
        packet((2, encrypted(TOKEN)), code=4),
        packet((2, encrypted(TOKEN))) + b"more",
        packet((1, b"web"), (2, b"not sixteen")),
        packet((1, b"web")),
        struct.pack("!BBH16s", 1, 7, 21, AUTHENTICATOR) + b"\x01",
        struct.pack("!BBH16sBB", 1, 7, 22, AUTHENTICATOR, 1, 200),
        struct.pack("!BBH16sBB", 1, 7, 22, AUTHENTICATOR, 1, 0),
    ],
)
def test_noise_is_not_a_request(noise: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|Access-Request|attribute|User-Password"):
        parse(noise)


@pytest.mark.parametrize(("accepted", "code"), [(True, ACCESS_ACCEPT), (False, ACCESS_REJECT)])
def test_an_answer_is_signed_for_the_request_it_answers(accepted: bool, code: int) -> None:
    request = AccessRequest(identifier=7, authenticator=AUTHENTICATOR, user="u", encrypted_password=b"", instance="i")

    reply = answer(request, SECRET, accepted=accepted)

    assert reply[:2] == bytes([code, 7])
    assert struct.unpack("!H", reply[2:4])[0] == len(reply)
    signed = reply[:4] + AUTHENTICATOR + reply[20:] + SECRET
    assert reply[4:20] == hashlib.md5(signed).digest()  # noqa: S324 (RFC 2865)
