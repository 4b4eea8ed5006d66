"""What follows from a data region. The only table of regions in the program."""

from dataclasses import dataclass

from app.regions import DataRegion


@dataclass(frozen=True, kw_only=True)
class RegionSpec:
    location: str
    # Google bills and places buckets of a single region in capitals, and accepts and answers them so.
    storage_location: str
    time_zone: str
    # Google wants UTC. Three in the morning of standard time; an hour later in summer.
    backup_start_utc: str
    # Sunday, also around three in the morning; Cloud SQL counts days from Monday = 1 and hours in UTC.
    maintenance_day: int
    maintenance_hour: int


REGIONS: dict[DataRegion, RegionSpec] = {
    DataRegion.AU: RegionSpec(
        location="australia-southeast1",
        storage_location="AUSTRALIA-SOUTHEAST1",
        time_zone="Australia/Sydney",
        backup_start_utc="17:00",
        maintenance_day=6,
        maintenance_hour=18,
    ),
    DataRegion.US: RegionSpec(
        location="us-central1",
        storage_location="US-CENTRAL1",
        time_zone="America/Chicago",
        backup_start_utc="09:00",
        maintenance_day=7,
        maintenance_hour=10,
    ),
    DataRegion.EU: RegionSpec(
        location="europe-west1",
        storage_location="EUROPE-WEST1",
        time_zone="Europe/Brussels",
        backup_start_utc="02:00",
        maintenance_day=7,
        maintenance_hour=3,
    ),
}
