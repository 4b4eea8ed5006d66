"""What became of the work, counted in the database and at the receiver of the messages.

Triggers write down every change of a state, and every end, so that one which happened twice is seen.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from app.queues import QUEUES
from tests.chaos.region import StruckRegion
from tests.chaos.report import Check
from tests.chaos.sink import Message, is_signed
from tests.chaos.work import STEPS, Accepted, findings, told

JOBS, RUNS, STEP_RUNS, MESSAGES = (
    "validations_validationjob",
    "workflows_workflowrun",
    "workflows_workflowsteprun",
    "webhooks_webhookdelivery",
)
UNFINISHED: Final = ("PENDING", "RUNNING", "WAITING")

AT_WORK: Final = " UNION ALL ".join(
    f"SELECT 1 FROM {table} WHERE state = 'RUNNING' AND lease_expires_at > now()"  # noqa: S608
    for table in (JOBS, STEP_RUNS)
)

# The trigger writes as the schema's owner: web and worker have rights on the application's own tables only.
AUDIT: Final = """
    CREATE TABLE IF NOT EXISTS chaos_change (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        relation text NOT NULL, id uuid NOT NULL, was text NOT NULL, became text NOT NULL
    );
    CREATE OR REPLACE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public AS $$ BEGIN
        INSERT INTO chaos_change (relation, id, was, became) VALUES (TG_TABLE_NAME, NEW.id, OLD.state, NEW.state);
        RETURN NULL;
    END $$
"""
TRIGGER: Final = """
    CREATE OR REPLACE TRIGGER chaos_note AFTER UPDATE ON {table} FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.finished_at IS DISTINCT FROM NEW.finished_at)
    EXECUTE FUNCTION chaos_note()
"""

# A worker that was frozen outlives its lease: whoever comes next takes the row over, and what the first one brings in
# the end must count for nothing. Some leases are over as soon as they are taken, while their workers work on.
LAPSES: Final = """
    CREATE TABLE IF NOT EXISTS chaos_lapse (at timestamptz NOT NULL DEFAULT clock_timestamp());
    TRUNCATE chaos_lapse;
    CREATE OR REPLACE FUNCTION chaos_lapse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public AS $$ BEGIN
        IF random() < 0.3 THEN
            NEW.lease_expires_at := now();
            INSERT INTO chaos_lapse DEFAULT VALUES;
        END IF;
        RETURN NEW;
    END $$
"""
LAPSE_TRIGGER: Final = """
    CREATE OR REPLACE TRIGGER chaos_lapse BEFORE UPDATE ON {table} FOR EACH ROW
    WHEN (NEW.lease_expires_at > now() AND NEW.lease_expires_at IS DISTINCT FROM OLD.lease_expires_at)
    EXECUTE FUNCTION chaos_lapse()
"""


def let_leases_lapse(region: StruckRegion) -> None:
    region.rows(LAPSES)
    for table in (JOBS, STEP_RUNS, MESSAGES):
        region.rows(LAPSE_TRIGGER.format(table=table))


def keep_leases(region: StruckRegion) -> int:
    """End what `let_leases_lapse` began; how many leases lapsed."""
    for table in (JOBS, STEP_RUNS, MESSAGES):
        region.rows(f"DROP TRIGGER chaos_lapse ON {table}")
    ((count,),) = region.rows("SELECT count(*) FROM chaos_lapse")
    return int(count)


def install(region: StruckRegion) -> None:
    region.rows(AUDIT)
    for table in (JOBS, RUNS, STEP_RUNS, MESSAGES):
        region.rows(TRIGGER.format(table=table))


def unfinished(region: StruckRegion) -> dict[str, int]:
    """How many rows of each kind have not ended."""
    counts = " UNION ALL ".join(
        f"SELECT '{table}', count(*) FROM {table} WHERE state = ANY(%(states)s)"  # noqa: S608
        for table in (JOBS, RUNS, STEP_RUNS, MESSAGES)
    )
    return {str(table): int(count) for table, count in region.rows(counts, {"states": list(UNFINISHED)})}


def due(region: StruckRegion) -> int:
    """How many tasks could be delivered at this moment."""
    now = datetime.now(UTC).isoformat()
    return sum(task["scheduleTime"] <= now for spec in QUEUES for task in region.tasks_in(spec.name))


def changes(region: StruckRegion, id_: str) -> list[tuple[float, str]]:
    """Every state that a row came to, with the moment in seconds."""
    rows = region.rows(
        "SELECT extract(epoch FROM at)::float8, became FROM chaos_change WHERE id = %s ORDER BY number", [id_]
    )
    return [(float(at), str(became)) for at, became in rows]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Counts for one organisation."""

    region: StruckRegion
    organization: str
    since: datetime
    accepted: Accepted
    # Jobs whose handler was made to fail always.
    intended: set[str]
    messages: dict[str, list[Message]]
    secret: str

    def checks(self) -> list[Check]:
        return [
            *self._validations(),
            *self._runs(),
            *self._messages(),
            self._dead_letters(),
            self._queues(),
        ]

    def numbers(self) -> dict[str, Any]:
        starts = self.region.rows(
            f"""SELECT count(*) FILTER (WHERE attempts > 1), max(attempts),
                percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)),
                count(*) FILTER (WHERE generation > 0)
            FROM {JOBS} WHERE {self._mine}""",  # noqa: S608
            [self.organization],
        )[0]
        received = Counter(len(found) for found in self.messages.values())
        return {
            "validations begun more than once": f"{starts[0]} (at most {starts[1]} times)",
            "validations whose task was replaced by the sweep": starts[3],
            "validation, accepted to done": "p50 {:.1f} s, p95 {:.1f} s".format(*(starts[2] or (0, 0))),
            "messages received more than once, under one id": sum(n for times, n in received.items() if times > 1),
        }

    def _validations(self) -> Iterable[Check]:
        rows = {
            str(id_): (str(state), str(verdict), int(errors))
            for id_, state, verdict, errors in self.region.rows(
                f"SELECT id, state, verdict, errors FROM {JOBS} WHERE {self._mine}",  # noqa: S608
                [self.organization],
            )
        }
        yield Check.same("an acknowledged validation is one job", self.accepted.validations, rows.keys(), "validations")
        yield Check.none(
            "every validation has ended, with the right verdict",
            [
                f"{id_}: {rows[id_]}"
                for id_, number in self.accepted.validations.items()
                if id_ in rows
                and rows[id_] != ("SUCCESS", "FAIL" if findings(number) else "PASS", len(findings(number)))
            ],
            len(rows),
            "validations",
        )
        found: dict[str, list[str]] = defaultdict(list)
        for id_, path in self.region.rows(
            f"SELECT job_id, path FROM validations_finding WHERE job_id IN (SELECT id FROM {JOBS} WHERE {self._mine})"  # noqa: S608
            " ORDER BY job_id, position",
            [self.organization],
        ):
            found[str(id_)].append(str(path))
        yield Check.none(
            "every finding is there once",
            [f"{id_}: {found[id_]}" for id_, n in self.accepted.validations.items() if found[id_] != findings(n)],
            sum(map(len, found.values())),
            "findings",
        )
        yield self._ends("every validation ended once", JOBS, self.accepted.validations)

    def _runs(self) -> Iterable[Check]:
        states = {
            str(id_): str(state)
            for id_, state in self.region.rows(
                f"SELECT id, state FROM {RUNS} WHERE {self._mine}",  # noqa: S608
                [self.organization],
            )
        }
        yield Check.same("an acknowledged run is one run", self.accepted.runs, states.keys(), "runs")
        steps: dict[str, dict[str, str]] = defaultdict(dict)
        step_runs: list[str] = []
        for id_, run, key, state, code in self.region.rows(
            f"""SELECT s.id, s.run_id, d.key, s.state, s.problem->>'code' FROM {STEP_RUNS} s
            JOIN workflows_workflowstepdefinition d ON d.id = s.step_id
            WHERE s.run_id IN (SELECT id FROM {RUNS} WHERE {self._mine})""",  # noqa: S608
            [self.organization],
        ):
            steps[str(run)][str(key)] = str(state) if state == "SUCCESS" else f"{state} ({code})"
            step_runs.append(str(id_))
        yield Check.none(
            "every run ended well, with each of its ten steps",
            [
                f"{id_}: {state}, {dict(steps[id_])}"
                for id_, state in states.items()
                if state != "SUCCESS" or len(steps[id_]) != STEPS or set(steps[id_].values()) != {"SUCCESS"}
            ],
            len(states),
            "runs",
        )
        yield self._ends("every run ended once", RUNS, states)
        yield self._ends("every step ended once", STEP_RUNS, step_runs)

    def _ends(self, promise: str, table: str, ids: Iterable[str]) -> Check:
        ends = Counter(
            str(id_)
            for (id_,) in self.region.rows(
                "SELECT id FROM chaos_change WHERE relation = %s AND became <> ALL(%s)", [table, list(UNFINISHED)]
            )
        )
        wanted = list(ids)
        return Check.none(promise, [f"{i}: {ends[i]} times" for i in wanted if ends[i] != 1], len(wanted), "ends")

    def _messages(self) -> Iterable[Check]:
        actions: dict[str, tuple[str, str]] = {
            f"msg_{id_}": (str(run), str(key))
            for id_, run, key in self.region.rows(
                f"""SELECT s.id, s.run_id, d.key FROM {STEP_RUNS} s
                JOIN workflows_workflowstepdefinition d ON d.id = s.step_id AND d.type = 'ACTION'
                WHERE s.run_id IN (SELECT id FROM {RUNS} WHERE {self._mine})""",  # noqa: S608
                [self.organization],
            )
        }
        finished = {f"msg_{id_}-0" for id_ in self.accepted.validations} | {f"msg_{id_}" for id_ in self.accepted.runs}
        yield Check.same(
            "each end, and each action, is one message at the receiver",
            finished | actions.keys(),
            self.messages.keys(),
            "messages",
        )
        rows = {
            str(message_id): str(state)
            for message_id, state in self.region.rows(
                f"SELECT message_id, state FROM {MESSAGES} WHERE endpoint_id IN"  # noqa: S608
                f" (SELECT id FROM webhooks_webhookendpoint WHERE {self._mine})",
                [self.organization],
            )
        }
        yield Check.same("each end is one message in the database", finished, rows.keys(), "messages")
        yield Check.none(
            "every message is delivered",
            [f"{id_}: {state}" for id_, state in rows.items() if state != "DELIVERED"],
            len(rows),
            "messages",
        )
        yield Check.none(
            "what is received again under one id is the same message",
            [id_ for id_, found in self.messages.items() if len({message.digest for message in found}) != 1],
            sum(map(len, self.messages.values())),
            "requests",
        )
        yield Check.none(
            "every message says what happened",
            [
                id_
                for id_, found in self.messages.items()
                if self._content(found[0], actions.get(id_)) != found[0].content.get("data")
            ],
            len(self.messages),
            "messages",
        )
        yield Check.none(
            "every message is signed",
            [id_ for id_, found in self.messages.items() if not all(is_signed(id_, m, self.secret) for m in found)],
            len(self.messages),
            "messages",
        )

    def _content(self, message: Message, action: tuple[str, str] | None) -> dict[str, Any]:
        """What the message has to say. Of what a moment decides, the message's own value is taken."""
        said: dict[str, Any] = message.content["data"]
        if action is not None:
            run, step = action
            number = self.accepted.runs.get(run, -1)
            return {"run": run, "step": step, "inputs": told(number)[step]}
        if "run" in said:
            return said | {"run": str(said["run"]), "state": "SUCCESS"}
        number = self.accepted.validations.get(said["id"], -1)
        errors = len(findings(number))
        return said | {
            "validator": "json-schema",
            "state": "SUCCESS",
            "verdict": "FAIL" if errors else "PASS",
            "errors": errors,
        }

    def _dead_letters(self) -> Check:
        letters = [
            f"{route}/{task_id} after {attempts} attempts: {error_type}: {error}"
            for route, task_id, attempts, error_type, error in self.region.rows(
                "SELECT route, task_id, attempts, error_type, left(error, 200) FROM dead_letters_deadletter"
                " WHERE failed_at >= %s AND task_id <> ALL(%s)",
                [self.since, list(self.intended)],
            )
        ]
        parked = [task["name"] for spec in QUEUES for task in self.region.tasks_in(spec.dead_letter_name)]
        return Check.none(
            "no dead letter: no handler fails always", letters + parked, len(self.accepted.validations), "validations"
        )

    def _queues(self) -> Check:
        """A task of the queue that nobody needs any more would be delivered again and again."""
        left = [task["name"] for spec in QUEUES for task in self.region.tasks_in(spec.name)]
        return Check.none("no task is left in a queue", left, len(QUEUES), "queues")

    @property
    def _mine(self) -> str:
        return "organization_id = (SELECT id FROM organizations_organization WHERE slug = %s)"
