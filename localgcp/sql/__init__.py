"""Cloud SQL: real Postgres servers, and the ways into them. Nothing here knows the API, only what it means."""

from pathlib import Path
from typing import TYPE_CHECKING

from localgcp.sql.layout import layout_of
from localgcp.sql.servers import InstanceSpec, Servers, remove_all, stop_all

if TYPE_CHECKING:
    from localgcp.region import Region

__all__ = ["InstanceSpec", "Servers", "layout_of", "remove_all", "socket_root", "stop_all"]


def socket_root(region: "Region") -> Path:
    """What a Cloud SQL volume mounts as /cloudsql: a directory per connection name, with the socket in it."""
    return layout_of(region.settings.data_dir).sockets
