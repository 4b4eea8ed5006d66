"""The environment that the application's tests run in. Values are obviously not real."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.app.postgres import ADMIN
from tests.app.tokens import SCHEDULER, TASKS, WORKER_URL

# Nobody listens on the discard port: a test that means to reach Google's APIs says where they are.
NOWHERE = "http://127.0.0.1:9"

CALLBACK_KEYS = "k1:Y2FsbGJhY2sta2V5LWZvci10ZXN0cy0wMTIzNDU2Nzg5,k0:dGhlLWtleS1iZWZvcmUtaXQtZm9yLXRlc3RzLTAxMjM0NTY="
CREDENTIAL_KEY = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


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
        "VALIDIBOT_LOCATION": "australia-southeast1",
        "VALIDIBOT_WORKER_URL": WORKER_URL,
        "VALIDIBOT_TASKS_SERVICE_ACCOUNT": TASKS,
        "VALIDIBOT_SCHEDULER_SERVICE_ACCOUNT": SCHEDULER,
        "VALIDIBOT_CALLBACK_KEYS": CALLBACK_KEYS,
        "VALIDIBOT_CALLBACK_SERVICE_ACCOUNTS": "energyplus@validibot-test.iam.gserviceaccount.com",
        "VALIDIBOT_CREDENTIAL_KEY": CREDENTIAL_KEY,
        "GOOGLE_CLOUD_TASKS_CUSTOM_ENDPOINT": f"{NOWHERE}/cloudtasks/v2/",
        "GOOGLE_OAUTH2_CUSTOM_ENDPOINT": f"{NOWHERE}/oauth2/",
        "DJANGO_SECRET_KEY": "a-key-for-tests-that-protects-nothing-at-all-0123456789",
    }
