"""Django's Postgres backend, logging in as the workload's service account when no password is set."""
