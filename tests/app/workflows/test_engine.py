"""The engine's decisions: any order of deliveries, any number, any crash comes to what the simple model says."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from app.workflows import engine
from app.workflows.engine import Progress, Retry, RunState, RunWhen, Step, StepState
from tests.app.workflows.plans import Planned, expected, plans


@dataclass
class Memory:
    """A run kept in dictionaries, with a queue that delivers in any order and as often as it likes."""

    plan: list[Planned]
    random: Random
    run: RunState = RunState.PENDING
    progress: dict[str, Progress] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)  # "" advances, a key runs a step
    at_work: list[str] = field(default_factory=list)  # steps whose worker is alive
    effects: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.steps = [planned.step() for planned in self.plan]
        self.planned = {planned.key: planned for planned in self.plan}
        self.progress = {planned.key: Progress() for planned in self.plan}
        self.attempts = dict.fromkeys(self.progress, 1)
        self.queue = [""]

    def until_quiet(self) -> None:
        while self.queue or self.at_work:
            moves: list[Callable[[], None]] = []
            if self.queue:
                moves += [self.deliver] * 3
            if self.at_work:
                moves += [self.finish] * 3 + [self.crash]
            self.random.choice(moves)()

    def deliver(self) -> None:
        message = self.random.choice(self.queue)
        if self.random.random() < 0.7:
            self.queue.remove(message)  # otherwise it comes again
        if message:
            self.begin(message)
        else:
            self.advance()

    def advance(self) -> None:
        decisions = engine.advance(self.run, self.steps, self.progress)
        self.run = decisions.state
        for key in decisions.skip:
            self.progress[key] = Progress(state=StepState.SKIPPED)
        for key in decisions.dispatch:
            self.progress[key] = Progress(is_dispatched=True)
            self.queue.append(key)

    def begin(self, key: str) -> None:
        if key in self.at_work:
            self.queue.append(key)  # the lease is held: back to the queue
        elif not self.progress[key].state.is_final:
            self.progress[key] = replace(self.progress[key], state=StepState.RUNNING)
            self.at_work.append(key)

    def crash(self) -> None:
        key = self.random.choice(self.at_work)
        self.at_work.remove(key)
        self.queue.append(key)  # the attempt had no answer, so the queue delivers it again

    def finish(self) -> None:
        key = self.random.choice(self.at_work)
        self.at_work.remove(key)
        planned, attempt = self.planned[key], self.attempts[key]
        self.effects[key, attempt] += 1
        if planned.condition and attempt <= planned.failures:
            settled = engine.settle_failure(planned.step(), attempt, is_retryable=True)
        elif planned.condition is None:
            settled = engine.settle_failure(planned.step(), attempt, is_retryable=False)
        else:
            settled = engine.Settlement(state=StepState.SUCCESS if planned.condition else StepState.SKIPPED)
        self.progress[key] = replace(self.progress[key], state=settled.state)
        if settled.rest is not None:
            self.attempts[key] += 1
            self.queue.append(key)
        else:
            self.queue.append("")


@given(plan=plans(), random=st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_any_order_of_deliveries_comes_to_what_the_sequential_model_says(plan: list[Planned], random: Random) -> None:
    memory = Memory(plan, random)

    memory.until_quiet()

    model = expected(plan)
    event(model.run.value)
    assert memory.run is model.run
    assert {key: step.state for key, step in memory.progress.items()} == model.states
    assert memory.attempts == model.attempts
    ran = {key: attempts for key, attempts in model.attempts.items() if (key, 1) in memory.effects}
    assert memory.effects == {(key, number): 1 for key, attempts in ran.items() for number in range(1, attempts + 1)}


@given(plan=plans(), random=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_deciding_again_decides_nothing(plan: list[Planned], random: Random) -> None:
    memory = Memory(plan, random)
    memory.advance()

    again = engine.advance(memory.run, memory.steps, memory.progress)

    assert again == engine.Decisions(state=memory.run)


@given(plan=plans(), random=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_a_replay_repeats_what_failed_and_all_behind_it_and_keeps_the_rest(plan: list[Planned], random: Random) -> None:
    memory = Memory(plan, random)
    memory.until_quiet()
    states = {key: step.state for key, step in memory.progress.items()}

    repeated = engine.to_repeat(memory.steps, states)

    kept = states.keys() - repeated
    assert not any(states[key] is StepState.FAILED for key in kept)
    assert all(kept.issuperset(step.depends_on) for step in memory.steps if step.key in kept)
    # Minimal too: each repeated step has failed itself or depends on one that is repeated.
    assert all(
        states[step.key] is StepState.FAILED or not repeated.isdisjoint(step.depends_on)
        for step in memory.steps
        if step.key in repeated
    )


def test_a_finished_run_decides_nothing_even_when_a_step_is_pending() -> None:
    decisions = engine.advance(RunState.CANCELLED, [Step(key="a")], {"a": Progress()})

    assert decisions == engine.Decisions(state=RunState.CANCELLED)


def test_a_skipped_step_skips_everything_behind_it_in_one_pass() -> None:
    steps = [Step(key="c", depends_on=("b",)), Step(key="b", depends_on=("a",)), Step(key="a", may_fail=True)]
    progress = {"a": Progress(state=StepState.FAILED), "b": Progress(), "c": Progress()}

    decisions = engine.advance(RunState.RUNNING, steps, progress)

    assert decisions == engine.Decisions(state=RunState.SUCCESS, skip=("b", "c"))


@pytest.mark.parametrize(
    ("run_when", "end", "runs"),
    [
        (RunWhen.ALL_SUCCEEDED, StepState.SUCCESS, True),
        (RunWhen.ALL_SUCCEEDED, StepState.SKIPPED, False),
        (RunWhen.ALL_SUCCEEDED, StepState.FAILED, False),
        (RunWhen.NONE_FAILED, StepState.SUCCESS, True),
        (RunWhen.NONE_FAILED, StepState.SKIPPED, True),
        (RunWhen.NONE_FAILED, StepState.FAILED, False),
        (RunWhen.ALL_FINISHED, StepState.SUCCESS, True),
        (RunWhen.ALL_FINISHED, StepState.SKIPPED, True),
        (RunWhen.ALL_FINISHED, StepState.FAILED, True),
    ],
)
def test_a_step_runs_or_is_skipped_by_how_its_dependencies_end(run_when: RunWhen, end: StepState, runs: bool) -> None:
    steps = [Step(key="a"), Step(key="b", depends_on=("a",), run_when=run_when)]

    decisions = engine.advance(RunState.RUNNING, steps, {"a": Progress(state=end), "b": Progress()})

    assert (decisions.dispatch, decisions.skip) == ((("b",), ()) if runs else ((), ("b",)))


def test_a_failed_attempt_rests_twice_as_long_each_time_up_to_the_ceiling() -> None:
    retry = Retry(max_attempts=6, backoff=timedelta(seconds=5), max_backoff=timedelta(seconds=60))

    rests = [engine.settle_failure(Step(key="a", retry=retry), n, is_retryable=True).rest for n in range(1, 7)]

    assert rests == [*(timedelta(seconds=n) for n in (5, 10, 20, 40, 60)), None]


def test_a_rest_that_the_other_side_asks_for_is_kept_up_to_the_ceiling() -> None:
    step = Step(key="a", retry=Retry(max_attempts=3, max_backoff=timedelta(seconds=60)))

    asked = [timedelta(seconds=n) for n in (1, 30, 3600)]
    rests = [engine.settle_failure(step, 1, is_retryable=True, wait_at_least=n).rest for n in asked]

    assert rests == [timedelta(seconds=n) for n in (5, 30, 60)]


def test_a_permanent_failure_is_not_tried_again() -> None:
    step = Step(key="a", retry=Retry(max_attempts=3))

    assert engine.settle_failure(step, 1, is_retryable=False) == engine.Settlement(state=StepState.FAILED)
