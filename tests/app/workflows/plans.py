"""Random workflows with a script of what each step will do, and what a run of them must come to.

The model below is the engine's specification in its simplest form: one step after the other, nothing twice, no queue.
"""

from dataclasses import dataclass

from hypothesis import strategies as st

from app.workflows.engine import Retry, RunState, RunWhen, Step, StepState


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step that fails `failures` times before it succeeds; `condition` is what its condition comes to."""

    key: str
    depends_on: tuple[str, ...]
    run_when: RunWhen
    may_fail: bool
    max_attempts: int
    failures: int
    condition: bool | None  # None: cannot be evaluated

    def step(self) -> Step:
        retry = Retry(max_attempts=self.max_attempts)
        return Step(
            key=self.key, depends_on=self.depends_on, run_when=self.run_when, may_fail=self.may_fail, retry=retry
        )


@dataclass(frozen=True)
class Expected:
    run: RunState
    states: dict[str, StepState]
    attempts: dict[str, int]


@st.composite
def plans(draw: st.DrawFn, *, max_steps: int = 12) -> list[Planned]:
    """In random order of definition: a step may be written before the ones that it depends on."""
    count = draw(st.integers(1, max_steps))
    names = [f"s{number}" for number in range(count)]
    planned = [
        Planned(
            key=names[number],
            depends_on=tuple(draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=4)))
            if number
            else (),
            run_when=draw(st.sampled_from(RunWhen)),
            may_fail=draw(st.booleans()),
            max_attempts=draw(st.integers(1, 3)),
            failures=draw(st.sampled_from([0, 0, 0, 1, 2, 3])),
            condition=draw(st.sampled_from([True, True, True, True, False, None])),
        )
        for number in range(count)
    ]
    return draw(st.permutations(planned))


def expected(plan: list[Planned]) -> Expected:
    by_key = {planned.key: planned for planned in plan}
    states: dict[str, StepState] = {}
    attempts: dict[str, int] = {}

    def end(key: str) -> StepState:
        if key not in states:
            states[key] = run(by_key[key])
        return states[key]

    def run(planned: Planned) -> StepState:
        attempts[planned.key] = 1
        ends = [end(key) for key in planned.depends_on]
        if planned.run_when is RunWhen.ALL_SUCCEEDED and any(state is not StepState.SUCCESS for state in ends):
            return StepState.SKIPPED
        if planned.run_when is RunWhen.NONE_FAILED and StepState.FAILED in ends:
            return StepState.SKIPPED
        if planned.condition is None:
            return StepState.FAILED
        if not planned.condition:
            return StepState.SKIPPED
        attempts[planned.key] = min(planned.failures + 1, planned.max_attempts)
        return StepState.SUCCESS if planned.failures < planned.max_attempts else StepState.FAILED

    for planned in plan:
        end(planned.key)
    failed = any(states[planned.key] is StepState.FAILED and not planned.may_fail for planned in plan)
    return Expected(RunState.FAILED if failed else RunState.SUCCESS, states, attempts)
