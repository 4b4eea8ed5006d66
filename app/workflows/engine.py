"""What a run does next, as pure functions: states in, decisions out. No clock, no database, no Django.

Whoever calls them holds the run's row lock and stores the decisions. Every function may be asked again about a state
that it has decided on before, and then decides nothing: this is what makes duplicate and reordered deliveries harmless.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final


class StepState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STEP_STATES


class RunState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self in FINAL_RUN_STATES


FINAL_STEP_STATES: Final = frozenset({StepState.SUCCESS, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})
FINAL_RUN_STATES: Final = frozenset({RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED})


class RunWhen(StrEnum):
    """Which ends of its dependencies let a step run. Whatever else they end as, the step is SKIPPED."""

    ALL_SUCCEEDED = "ALL_SUCCEEDED"
    NONE_FAILED = "NONE_FAILED"  # a skipped branch does not stop what joins the branches
    ALL_FINISHED = "ALL_FINISHED"  # to report or to clean up


_LETS_RUN: Final[Mapping[RunWhen, frozenset[StepState]]] = {
    RunWhen.ALL_SUCCEEDED: frozenset({StepState.SUCCESS}),
    RunWhen.NONE_FAILED: frozenset({StepState.SUCCESS, StepState.SKIPPED}),
    RunWhen.ALL_FINISHED: FINAL_STEP_STATES,
}


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often a step is tried, and how long it rests after each failure: doubled every time, up to a ceiling."""

    max_attempts: int = 1
    backoff: timedelta = timedelta(seconds=5)
    max_backoff: timedelta = timedelta(minutes=5)

    def rest_after(self, attempt: int) -> timedelta:
        # The exponent is bounded: 2**1000 seconds are no timedelta.
        factor: int = 2 ** min(attempt - 1, 30)
        return min(self.backoff * factor, self.max_backoff)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a definition, as far as the order of things is concerned."""

    key: str
    depends_on: tuple[str, ...] = ()
    run_when: RunWhen = RunWhen.ALL_SUCCEEDED
    may_fail: bool = False
    retry: Retry = field(default_factory=Retry)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a step of a run stands. `is_dispatched`: a task for it has been asked for."""

    state: StepState = StepState.PENDING
    is_dispatched: bool = False


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What to store and to enqueue. Empty sequences and an unchanged state mean: nothing to do."""

    state: RunState
    dispatch: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


def advance(state: RunState, steps: Sequence[Step], progress: Mapping[str, Progress]) -> Decisions:
    """Dispatch what can run, skip what never will, and end the run when all its steps have ended."""
    if state.is_final:
        return Decisions(state=state)
    states = {key: step.state for key, step in progress.items()}
    dispatch: list[str] = []
    skip: list[str] = []
    for step in in_order(steps):
        if states[step.key] is not StepState.PENDING or progress[step.key].is_dispatched:
            continue
        ends = [states[key] for key in step.depends_on]
        if not all(end.is_final for end in ends):
            continue
        if all(end in _LETS_RUN[step.run_when] for end in ends):
            dispatch.append(step.key)
        else:
            # In topological order, so that what depends on a skipped step is decided in the same pass.
            states[step.key] = StepState.SKIPPED
            skip.append(step.key)
    return Decisions(state=_state_of_run(steps, states), dispatch=tuple(dispatch), skip=tuple(skip))


def _state_of_run(steps: Iterable[Step], states: Mapping[str, StepState]) -> RunState:
    if not all(state.is_final for state in states.values()):
        return RunState.RUNNING
    failed = any(states[step.key] is StepState.FAILED and not step.may_fail for step in steps)
    return RunState.FAILED if failed else RunState.SUCCESS


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How an attempt leaves its step. `rest` is set when the step is tried again."""

    state: StepState
    rest: timedelta | None = None


def settle_failure(
    step: Step, attempt: int, *, is_retryable: bool, wait_at_least: timedelta | None = None
) -> Settlement:
    """After attempt number `attempt` (from 1) failed. `wait_at_least`: the other side asked for it (Retry-After)."""
    if not is_retryable or attempt >= step.retry.max_attempts:
        return Settlement(state=StepState.FAILED)
    rest = step.retry.rest_after(attempt)
    if wait_at_least is not None:
        rest = max(rest, min(wait_at_least, step.retry.max_backoff))
    return Settlement(state=StepState.PENDING, rest=rest)


def to_repeat(
    steps: Sequence[Step], states: Mapping[str, StepState], chosen: Collection[str] | None = None
) -> frozenset[str]:
    """What a replay runs again: the chosen steps (default: FAILED and CANCELLED ones) and everything behind them.

    The rest is closed under `depends_on`, so its results can be taken over. Raises: KeyError for an unknown step.
    """
    if chosen is None:
        chosen = [key for key, state in states.items() if state in (StepState.FAILED, StepState.CANCELLED)]
    unknown = [key for key in chosen if key not in states]
    if unknown:
        raise KeyError(unknown[0])
    repeated = set(chosen)
    for step in in_order(steps):
        if not repeated.isdisjoint(step.depends_on):
            repeated.add(step.key)
    return frozenset(repeated)


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Topological, and otherwise as written. Raises: ValueError for what `definitions` would have refused."""
    ordered: list[Step] = []
    placed: set[str] = set()
    waiting = list(steps)
    while waiting:
        ready = [step for step in waiting if placed.issuperset(step.depends_on)]
        if not ready:
            raise ValueError(f"these steps can never run: {', '.join(step.key for step in waiting)}")
        ordered += ready
        placed.update(step.key for step in ready)
        waiting = [step for step in waiting if step.key not in placed]
    return ordered


def ancestors(steps: Sequence[Step]) -> dict[str, frozenset[str]]:
    """Every step that is finished before another one runs. A step sees the results of these and of no others."""
    found: dict[str, frozenset[str]] = {}
    for step in in_order(steps):
        found[step.key] = frozenset(step.depends_on).union(*(found[key] for key in step.depends_on))
    return found
