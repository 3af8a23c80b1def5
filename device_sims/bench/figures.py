"""A measured figure, its goal and what it is compared with."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Figure", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        figure: what was measured.
        value: the measurement.
        unit: its unit.
        goal: the bound that was set.
        at_least: whether the goal is a lower bound; otherwise an upper one.
        compared_with: what stands beside it, measured in the same run or published.
    """

    figure: str
    value: float
    unit: str
    goal: float
    at_least: bool
    compared_with: str

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def publish(name: str, figures: Sequence[Figure], *, runs: Path = Path("runs")) -> None:
    """Print the figures as a table and write `runs/bench/NAME.json`."""
    for figure in figures:
        bound = "at least" if figure.at_least else "at most"
        print(
            f"{'met   ' if figure.met else 'MISSED'}  {figure.figure:44} {figure.value:>10,.4g} "
            f"{figure.unit:8} goal: {bound} {figure.goal:,g}   ({figure.compared_with})"
        )
    entries = []
    for figure in figures:
        entry = {**asdict(figure), "met": figure.met}
        del entry["at_least"]
        entries.append(entry)
    path = runs / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=1) + "\n")
    print(f"written: {path}", flush=True)
