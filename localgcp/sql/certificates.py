"""The certificates of an instance: its own authority, its server, and those that connectors ask for.

A connector with IAM authentication sends its access token when it asks for a certificate, and the certificate carries
it, sealed: the server takes it out at the connection and logs the client in. Nothing about it has to be kept here.
"""

import base64
import hashlib
import ipaddress
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localgcp.errors import InvalidArgument

AUTHORITY_LIFETIME = timedelta(days=3650)
EPHEMERAL_LIFETIME = timedelta(hours=1)
#: A client's clock may be a little behind ours.
BACKDATED = timedelta(minutes=5)
#: Below 2.25, the arc that anybody may use with a UUID.
SEALED_TOKEN = x509.ObjectIdentifier("2.25.153047158432980171283349281734091734")


@dataclass(frozen=True, kw_only=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    seal: Fernet
    directory: Path

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def server_certificate(self) -> Path:
        return self.directory / "server.pem"

    def sign_client(self, public_key_pem: str, token: str | None, lifetime: timedelta) -> x509.Certificate:
        """A client's certificate for the key it has, with the access token it logs in with, if any."""
        key = read_public_key(public_key_pem)
        builder = _builder(name("Google Cloud SQL Client"), self.certificate.subject, key, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if token:
            sealed = x509.UnrecognizedExtension(SEALED_TOKEN, self.seal.encrypt(token.encode()))
            builder = builder.add_extension(sealed, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def token_in(self, certificate: x509.Certificate) -> str | None:
        """The access token of a certificate that we signed; None for a client that brings a password."""
        try:
            extension = certificate.extensions.get_extension_for_oid(SEALED_TOKEN).value
        except x509.ExtensionNotFound:
            return None
        try:
            return self.seal.decrypt(cast(x509.UnrecognizedExtension, extension).value).decode()
        except InvalidToken:
            return None


def authority_of(directory: Path, connection_name: str, address: str) -> Authority:
    """The authority of an instance, created with its server's certificate when there is none yet."""
    if not (directory / "server.pem").exists():
        create_authority(directory, connection_name, address)
    certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    pem = (directory / "ca.key").read_bytes()
    key = cast(ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(pem, password=None))
    raw = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    seal = Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"access token in a certificate" + raw).digest()))
    return Authority(certificate=certificate, key=key, seal=seal, directory=directory)


def create_authority(directory: Path, connection_name: str, address: str) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    project, _, instance = connection_name.rsplit(":", 2)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = name("Google Cloud SQL Server CA", qualifier=str(uuid.uuid4()))
    authority = (
        _builder(subject, subject, key.public_key(), AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    # Google's Go connector compares the common name with `project:instance`.
    server = (
        _builder(name(f"{project}:{instance}"), subject, server_key.public_key(), AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(directory / "ca.pem", authority.public_bytes(serialization.Encoding.PEM))
    _write(directory / "ca.key", _pem(key))
    # Last, and whole: its presence says that the others are complete.
    _write(directory / "server.pem", server.public_bytes(serialization.Encoding.PEM) + _pem(server_key))


def ssl_cert(certificate: x509.Certificate, instance: str) -> dict[str, str]:
    """A certificate as the API's SslCert."""
    return {
        "kind": "sql#sslCert",
        "certSerialNumber": str(certificate.serial_number),
        "cert": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "commonName": certificate.subject.rfc4514_string({NameOID.DN_QUALIFIER: "dnQualifier"}),
        "sha1Fingerprint": certificate.fingerprint(hashes.SHA1()).hex(),  # noqa: S303  (the API's name for it)
        "instance": instance,
        "createTime": rfc3339(certificate.not_valid_before_utc),
        "expirationTime": rfc3339(certificate.not_valid_after_utc),
    }


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def read_public_key(pem: str) -> CertificatePublicKeyTypes:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise InvalidArgument("Invalid request: public_key must be an RSA or EC key in PEM format.", reason="invalid")
    return key


def name(common_name: str, qualifier: str | None = None) -> x509.Name:
    attributes = [
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Google, Inc"),
        x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
    ]
    if qualifier is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.DN_QUALIFIER, qualifier))
    return x509.Name(attributes)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, lifetime: timedelta
) -> x509.CertificateBuilder:
    # The real clock, not the region's: clients compare with their own.
    now = datetime.now(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(path.suffix + ".new")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(content)
    unfinished.replace(path)
