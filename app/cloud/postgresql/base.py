"""Each new connection, in the pool or not, takes the access token of that moment as its password (Cloud SQL, IAM
database authentication). A token lives for an hour and a connection may live longer: only the login looks at it."""

from typing import Any, Self

import psycopg
from django.db.backends.postgresql import base

from app.cloud.identity import login_token


class TokenConnection(psycopg.Connection[Any]):
    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        try:
            return super().connect(conninfo, **{**kwargs, "password": login_token.current()})
        except psycopg.OperationalError as error:
            # libpq reports a refused login without an SQLSTATE of its own.
            if "authentication failed" in str(error):
                login_token.forget()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._uses_token = not self.settings_dict["PASSWORD"]
        if self._uses_token and (pool := self.settings_dict["OPTIONS"].get("pool")):
            pool.setdefault("connection_class", TokenConnection)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if self._uses_token and not self.pool:
            return TokenConnection.connect(**conn_params)
        return super().get_new_connection(conn_params)
