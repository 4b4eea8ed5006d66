"""Behaviour, one module per API. An API without a module is stored and validated, and denied to everybody."""
