"""The environment that the application's tests run in. Values are obviously not real."""

from pathlib import Path

from tests.app.postgres import ADMIN


def environment(database: Path, media: Path) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "app.settings",
        "GOOGLE_CLOUD_PROJECT": "validibot-test",
        "VALIDIBOT_DATA_REGION": "AU",
        "VALIDIBOT_ROLE": "web",
        "VALIDIBOT_PUBLIC_HOST": "au.validibot.com",
        "VALIDIBOT_RELEASE": "r1",
        "VALIDIBOT_DATABASE_HOST": str(database),
        "VALIDIBOT_DATABASE_NAME": "validibot",
        "VALIDIBOT_DATABASE_USER": ADMIN,
        "VALIDIBOT_DATABASE_PASSWORD": ADMIN,
        "VALIDIBOT_MEDIA_DIRECTORY": str(media),
        "DJANGO_SECRET_KEY": "a-key-for-tests-that-protects-nothing-at-all-0123456789",
    }
