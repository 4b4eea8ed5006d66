"""Numbers that Google draws for resources."""

import secrets


def numeric_id() -> str:
    """Nineteen digits. Declared as unsigned 64 bits, but clients (the Pulumi provider, for one) read them as signed."""
    return str(10**18 + secrets.randbelow(2**63 - 10**18))
