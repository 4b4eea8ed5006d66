"""Cloud SQL: real Postgres servers, and the ways into them. Nothing here knows the API, only what it means."""

from localgcp.sql.layout import layout_of
from localgcp.sql.servers import InstanceSpec, Servers, remove_all, stop_all

__all__ = ["InstanceSpec", "Servers", "layout_of", "remove_all", "stop_all"]
