"""The process's pool of sandboxed validators."""

import atexit
from functools import cache

from app.settings import env
from app.validations.engines.pool import Pool


@cache
def pool() -> Pool:
    children = Pool(env.validator_processes)
    atexit.register(children.close)
    return children
