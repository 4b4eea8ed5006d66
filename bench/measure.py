"""Rounds that alternate between two sides, and what is said of them: median, smallest and largest."""

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Comparison:
    """Two sides, measured in turn. A ratio is taken within a round, so that a machine's slow minute slows both."""

    name: str
    unit: str
    #: What the ratio says when it is above one.
    above_one: str
    ours: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / baseline for ours, baseline in zip(self.ours, self.baseline, strict=True)]

    def measure(self, rounds: int, ours: Callable[[], float], baseline: Callable[[], float]) -> "Comparison":
        """Measure both sides `rounds` more times; every second round begins with the other side."""
        for _ in range(rounds):
            self.load.append(os.getloadavg()[0])
            if len(self.ours) % 2:
                theirs, mine = baseline(), ours()
            else:
                mine, theirs = ours(), baseline()
            self.ours.append(mine)
            self.baseline.append(theirs)
            say(f"{self.name}: {mine:.4g} to {theirs:.4g} {self.unit} (load {self.load[-1]:.1f})")
        return self


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> str:
    """`median (smallest to largest)`"""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def show(*comparisons: Comparison) -> None:
    """A table in Markdown, and a line about the machine."""
    print("| what | unit | rounds | ours | baseline | ratio | load average |")
    print("|---|---|---|---|---|---|---|")
    for one in comparisons:
        cells = (one.name, one.unit, str(len(one.ours)), spread(one.ours), spread(one.baseline), spread(one.ratios))
        print(f"| {' | '.join(cells)} | {min(one.load):.1f} to {max(one.load):.1f} |")
    print()
    for text in sorted({one.above_one for one in comparisons}):
        print(f"A ratio above 1: {text}.")
    print(f"Median (smallest to largest). {os.cpu_count()} CPUs.", flush=True)
