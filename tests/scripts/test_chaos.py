"""What the report of `make chaos` makes of its counts, without a region."""

from tests.chaos.failing import Patience, compared
from tests.chaos.report import Check, Report, Verdict
from tests.chaos.strikes import Script
from tests.chaos.work import document, findings


def test_what_is_lost_and_what_nobody_asked_for_are_named() -> None:
    check = Check.same("each is one", {"a", "b"}, {"b", "c"}, "jobs")

    assert check.verdict is Verdict.BROKEN
    assert check.offenders == ("lost: a", "nobody asked for: c")


def test_nothing_to_look_at_is_no_proof() -> None:
    report = Report(checks=[Check.none("every job has ended", [], 0, "jobs")])

    assert (report.checks[0].verdict, report.exit_code) == (Verdict.UNVERIFIED, 3)


def test_a_report_without_checks_proves_nothing() -> None:
    assert Report().exit_code == 3


def test_what_is_broken_outweighs_what_could_not_be_verified() -> None:
    held = Check.none("one", [], 1, "jobs")
    broken = Check.none("two", ["a"], 1, "jobs")
    unverified = Check.unverified("three", "nobody answered")

    assert Report(checks=[held]).exit_code == 0
    assert Report(checks=[held, unverified]).exit_code == 3
    assert Report(checks=[held, unverified, broken]).exit_code == 1


def test_a_gap_may_be_a_fifth_off_and_late_by_a_moment() -> None:
    assert compared("gaps", [2, 4, 8], [2.0, 4.9, 7.0]).verdict is Verdict.HELD
    assert compared("gaps", [2, 4, 8], [2.0, 4.0, 6.0]).verdict is Verdict.BROKEN
    assert compared("gaps", [2, 4, 8], [2.0, 7.0, 8.0]).verdict is Verdict.BROKEN
    assert compared("gaps", [2, 4, 8], [2.0, 4.0]).verdict is Verdict.BROKEN


def test_the_wait_doubles_so_often_and_stays_below_its_ceiling() -> None:
    patience = Patience(attempts=8, least=2, most=60, doublings=2)

    assert patience.gaps() == [2, 4, 8, 16, 24, 32, 40]
    assert Patience(attempts=5, least=2, most=10, doublings=5).gaps() == [2, 4, 8, 10]


def test_a_seed_gives_an_order() -> None:
    script = Script(worker_kills=2, database_restarts=1, region_kills=1, duration_seconds=50, seed=1)

    assert script.strikes() == script.strikes()
    assert [at for at, _ in script.strikes()] == [10, 20, 30, 40]
    assert sorted(kind for _, kind in script.strikes()) == [
        "kill a worker",
        "kill a worker",
        "kill the region",
        "restart the database",
    ]


def test_a_document_has_the_errors_that_are_expected_of_it() -> None:
    wrong = [f"/values/{at}" for at, value in enumerate(document(9)["values"]) if value < 0]

    assert wrong == ["/values/2", "/values/3", "/values/4", "/values/5"]
    assert findings(9) == wrong
