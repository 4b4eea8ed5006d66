"""For every test."""

# Imported at the start: its pytest plug-in would else do so at the very end, after the tests' threads, where CPython
# 3.11's parser can fail with "AST constructor recursion depth mismatch" (python/cpython#106905).
import hypothesis  # noqa: F401
