from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "app.dead_letters"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "dead letters"
