"""The regions an organisation's data can live in, and where each answers. Free of Django."""

from enum import StrEnum


class DataRegion(StrEnum):
    AU = "AU"
    US = "US"
    EU = "EU"

    @property
    def public_host(self) -> str:
        """The production host of the region. A stack's own host is a setting: staging has another one."""
        return f"{self.value.lower()}.validibot.com"
