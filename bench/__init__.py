"""Measurements. Each compares with a baseline that runs on the same machine in the same minutes, and prints a ratio.

Nothing here passes or fails: a machine that others use decides too much. `docs/benchmarks.md` holds a run's figures.
"""
