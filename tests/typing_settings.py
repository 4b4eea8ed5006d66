"""Django's settings as mypy's plugin loads them: `app.settings` with an environment that it accepts."""

import os

os.environ.update(
    GOOGLE_CLOUD_PROJECT="validibot-types",
    DJANGO_SECRET_KEY="not-a-secret-but-long-enough-to-be-accepted-as-one",
    VALIDIBOT_DATA_REGION="AU",
    VALIDIBOT_ROLE="web",
    VALIDIBOT_PUBLIC_HOST="au.validibot.com",
    VALIDIBOT_DATABASE_HOST="/cloudsql/validibot-types",
    VALIDIBOT_DATABASE_NAME="validibot",
    VALIDIBOT_DATABASE_USER="web",
    VALIDIBOT_MEDIA_BUCKET="validibot-types-media",
)

from app.settings import *  # noqa: E402, F403  Django reads the module that it is given
