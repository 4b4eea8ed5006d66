"""What was counted, as a table, as JSON and as an exit code."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from rich.console import Console
from rich.table import Table

SHOWN: Final = 10


class Verdict(StrEnum):
    HELD = "held"
    BROKEN = "BROKEN"
    UNVERIFIED = "UNVERIFIED"


_STYLE: Final = {Verdict.HELD: "green", Verdict.BROKEN: "bold red", Verdict.UNVERIFIED: "bold yellow"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One promise, and what was found of it. `offenders` says which ones broke it."""

    promise: str
    verdict: Verdict
    found: str
    offenders: tuple[str, ...] = ()

    @classmethod
    def none(cls, promise: str, offenders: Collection[Any], counted: int, what: str) -> "Check":
        """Holds when nothing offends, and something was there to count."""
        shown = tuple(str(one) for one in sorted(offenders, key=str))
        if shown:
            return cls(promise=promise, verdict=Verdict.BROKEN, found=f"{len(shown)} of {counted}", offenders=shown)
        if not counted:
            return cls(promise=promise, verdict=Verdict.UNVERIFIED, found=f"no {what} to look at")
        return cls(promise=promise, verdict=Verdict.HELD, found=f"{counted} {what}")

    @classmethod
    def same(cls, promise: str, expected: Collection[str], found: Collection[str], what: str) -> "Check":
        """Holds when two sets are equal: names what is lost, and what nobody has asked for."""
        lost, unasked = set(expected) - set(found), set(found) - set(expected)
        offenders = [f"lost: {one}" for one in lost] + [f"nobody asked for: {one}" for one in unasked]
        return cls.none(promise, offenders, len(expected), what)

    @classmethod
    def unverified(cls, promise: str, why: str) -> "Check":
        return cls(promise=promise, verdict=Verdict.UNVERIFIED, found=why)


@dataclass(kw_only=True)
class Report:
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: everything held. 1: something is broken. 3: something could not be verified, so it does not count."""
        verdicts = {check.verdict for check in self.checks}
        if Verdict.BROKEN in verdicts:
            return 1
        return 3 if Verdict.UNVERIFIED in verdicts or not verdicts else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "exitCode": self.exit_code,
            "checks": [asdict(check) for check in self.checks],
            "numbers": self.numbers,
        }

    def show(self, console: Console) -> None:
        table = Table("promise", "verdict", "found", title="chaos", title_justify="left")
        for check in self.checks:
            style = _STYLE[check.verdict]
            table.add_row(check.promise, f"[{style}]{check.verdict}[/{style}]", check.found)
        numbers = Table("counted", "", show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in self.numbers.items():
            numbers.add_row(name, str(value))
        console.print(table, numbers)
        for check in self.checks:
            self._show_offenders(console, check.promise, check.offenders)

    @staticmethod
    def _show_offenders(console: Console, promise: str, offenders: Sequence[str]) -> None:
        if not offenders:
            return
        console.print(f"\n[bold red]{promise}[/bold red]")
        for one in offenders[:SHOWN]:
            console.print(f"  {one}", markup=False)
        if len(offenders) > SHOWN:
            console.print(f"  … and {len(offenders) - SHOWN} more: see the JSON")
