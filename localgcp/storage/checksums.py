"""CRC32C and MD5 the way Cloud Storage writes them, and the CRC32C of two texts put together."""

import base64
import binascii

from localgcp.errors import InvalidArgument

CASTAGNOLI = 0x82F63B78  # reflected polynomial


def crc32c_text(value: int) -> str:
    """Base64 of the four bytes, big-endian."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def digest_text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def parse_digest(text: str, *, field: str, length: int) -> bytes:
    """Raises InvalidArgument when `text` is not base64 of `length` bytes."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != length:
        raise InvalidArgument(
            f"Invalid value for {field}: '{text}' is not the base64 of {length} bytes", reason="invalid"
        )
    return value


def parse_goog_hash(values: list[str]) -> tuple[int | None, bytes | None]:
    """CRC32C and MD5 out of `x-goog-hash` headers (`crc32c=…,md5=…`, one header or several)."""
    crc32c: int | None = None
    md5: bytes | None = None
    for item in ",".join(values).split(","):
        name, _, text = item.strip().partition("=")
        if name == "crc32c":
            crc32c = int.from_bytes(parse_digest(text, field="x-goog-hash", length=4), "big")
        elif name == "md5":
            md5 = parse_digest(text, field="x-goog-hash", length=16)
    return crc32c, md5


def combine_crc32c(first: int, second: int, second_length: int) -> int:
    """CRC32C of two texts joined, from the CRC32C of each. Logarithmic in the length of the second."""
    if second_length == 0:
        return first
    # Appending one zero bit multiplies the register by x modulo the polynomial: a matrix over GF(2), squared for
    # 2, 4, 8 … bits.
    odd = [CASTAGNOLI] + [1 << bit for bit in range(31)]
    even = _square(odd)  # 2 zero bits
    odd = _square(even)  # 4 zero bits
    remaining = second_length
    while remaining:
        even = _square(odd)
        if remaining & 1:
            first = _times(even, first)
        remaining >>= 1
        if not remaining:
            break
        odd = _square(even)
        if remaining & 1:
            first = _times(odd, first)
        remaining >>= 1
    return first ^ second


def _times(matrix: list[int], vector: int) -> int:
    result = 0
    for row in matrix:
        if vector & 1:
            result ^= row
        vector >>= 1
        if not vector:
            break
    return result


def _square(matrix: list[int]) -> list[int]:
    return [_times(matrix, row) for row in matrix]
