from django.apps import AppConfig


class SimulationsConfig(AppConfig):
    name = "app.simulations"
    default_auto_field = "django.db.models.BigAutoField"
