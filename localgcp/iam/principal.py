"""The caller of a request."""

from dataclasses import dataclass

OPERATOR_EMAIL = "operator@localgcp.iam.gserviceaccount.com"


@dataclass(frozen=True)
class Principal:
    """An authenticated account, or nobody in particular when `email` is None."""

    email: str | None

    @property
    def is_anonymous(self) -> bool:
        return self.email is None

    @property
    def is_operator(self) -> bool:
        """The account that owns every project of this region, as whoever starts localgcp does."""
        return self.email == OPERATOR_EMAIL

    @property
    def member(self) -> str:
        """The way a policy names this principal."""
        if self.email is None:
            return "allUsers"
        kind = "serviceAccount" if self.email.endswith("gserviceaccount.com") else "user"
        return f"{kind}:{self.email}"


ANONYMOUS = Principal(email=None)
OPERATOR = Principal(email=OPERATOR_EMAIL)
