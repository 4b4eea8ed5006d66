"""Identity: who calls (`tokens`, `metadata`), what an account is (`accounts`), and what it may do (`policies`, `roles`)."""
