"""Identity: who calls (`tokens`, `metadata`, `accounts`) and what they may do (`policies`, `roles`)."""
