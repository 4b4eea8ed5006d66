"""For every test."""

# Its pytest plug-in would else import it at the very end. CPython before 3.11.8 can fail to parse a module ("AST
# constructor recursion depth mismatch", python/cpython#106905) when a finalizer breaks the parse off; at the start,
# there is nothing to finalize.
import hypothesis  # noqa: F401
