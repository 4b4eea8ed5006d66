from django.apps import AppConfig


class OrganizationsConfig(AppConfig):
    name = "app.organizations"
    default_auto_field = "django.db.models.BigAutoField"
