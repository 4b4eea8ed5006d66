from django.apps import AppConfig


class ValidationsConfig(AppConfig):
    name = "app.validations"
    default_auto_field = "django.db.models.BigAutoField"
