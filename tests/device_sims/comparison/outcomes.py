"""Outcomes as runs leave them, without running anything."""

from typing import Any

from device_sims.comparison.summary import Case, Panel
from device_sims.protocol import Quality

POPULARITY = Quality(hr_at_10=0.4, ndcg_at_10=0.2, full_hr_at_10=0.1, full_ndcg_at_10=0.05)


def outcome(speed: float, seed: int, *, best: float = 0.4, exposure: float | None = None) -> Any:
    """Quality rises in a straight line to its best, the faster the sooner, and then stays."""
    quality = [
        {
            "hours": float(hour),
            "version": 10 * hour,
            "updates": 100 * hour,
            "bytes_up": 36_000 * hour,
            "bytes_down": 440_000 * hour,
            "energy_j": 250.0 * hour,
            "hr_at_10": 2.0 * min(best, 0.1 + speed * hour + 0.001 * seed),
            "ndcg_at_10": min(best, 0.1 + speed * hour + 0.001 * seed),
            "validation_ndcg_at_10": min(best, 0.1 + speed * hour),
        }
        for hour in range(9)
    ]
    group = {"devices": 10, "hr_at_10": 0.6, "ndcg_at_10": 0.3}
    return {
        "devices": 30,
        "quality": quality,
        "staleness": [[0, 300], [1, 80], [7, 20]],
        "faults": {},
        "audit": {"created": 400, "accepted": 400, "lost": 0, "leaks": 0},
        "digest": f"{seed:064x}",
        "groups": {
            "fast": {"updates": 600, **group},
            "middle": {"updates": 300, **group},
            "slow": {"updates": 50, **group, "ndcg_at_10": 0.2},
        },
        "exposure": exposure,
    }


def case(name: str, speed: float, *, seeds: int = 3, **kwargs: Any) -> Case:
    return Case(
        name=name,
        digest=name,
        settings={"name": name, "fleet": {"update_s": 1.0 / speed}, "run": {"hours": 8.0}},
        outcomes={seed: outcome(speed, seed, **kwargs) for seed in range(seeds)},
    )


def panel(*cases: Case, centralised: bool = False) -> Panel:
    found = {0: {"epoch": 3, "quality": POPULARITY.to_dict()}} if centralised else {}
    return Panel(
        name="films <b>",
        facts={"users": 30, "items": 100},
        baselines={"popularity": POPULARITY},
        centralised=found,
        cases=cases,
    )
