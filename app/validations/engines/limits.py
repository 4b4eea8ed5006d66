"""What a submission may cost. Each number is a promise of docs/reference/api.md."""

from datetime import timedelta
from typing import Final

MAX_BODY_BYTES: Final = 10 * 1024 * 1024  # design, section 9: inline submission
MAX_SCHEMA_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 128  # the JSON Schema engine stops at 255, libxml2 at 256
MAX_NUMBER_DIGITS: Final = 400
MAX_RULES: Final = 100
MAX_EXPRESSION_LENGTH: Final = 4096
MAX_MACRO_DEPTH: Final = 4  # all, exists, exists_one, filter, map inside one another
MAX_FINDINGS: Final = 1000
MAX_MESSAGE_LENGTH: Final = 500
MAX_FILENAME_LENGTH: Final = 255
# Backtracking steps of one pattern on one text. Ordinary patterns need fewer than a thousand.
MAX_PATTERN_STEPS: Final = 100_000
MAX_PATTERN_BYTES: Final = 1024 * 1024  # of one compiled pattern

WALL_CLOCK: Final = timedelta(seconds=5)
# What a child may allocate on top of its interpreter and libraries. A 10 MB document of ordinary shape takes about
# 150 MB as Python objects and again as the engine's own.
MEMORY_HEADROOM_BYTES: Final = 384 * 1024 * 1024
