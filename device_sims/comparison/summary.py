"""From the outcomes of runs to the report's JSON document: everything that the report shows.

Quality is on the test items. A run's ``picked`` quality is that of the evaluation with the highest
NDCG@10 on the validation items, and ``end`` that of the last one. All estimates are over seeds.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_sims.comparison.curves import Course, first_reach, mean_course
from device_sims.comparison.intervals import CONFIDENCE, Estimate, estimate, estimate_ratio
from device_sims.protocol import Quality

__all__ = ["AXES", "Case", "Panel", "Target", "summarise"]

FORMAT = 1
AXES = ("hours", "bytes_up", "bytes_down", "energy_j")
"""What quality is shown against: keys of `Measured`."""
MEASURES = ("ndcg_at_10", "hr_at_10")

Outcome = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scenario and what its runs gave.

    Attributes:
        name: what people call it.
        digest: of everything that decides it.
        settings: the scenario as a document.
        outcomes: by seed; those that have finished.
        missing: seeds of which no run has finished.
        other_code: seeds whose run was made by other code than this.
    """

    name: str
    digest: str
    settings: Mapping[str, Any]
    outcomes: Mapping[int, Outcome]
    missing: tuple[int, ...] = ()
    other_code: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The scenarios of one data set, and what they are held against.

    Attributes:
        name: of the data set.
        facts: what a reader must know about it, by name.
        baselines: quality on the test items of what learns nothing on a device.
        centralised: the same recommender trained on all data in one place: quality by seed.
        cases: in the order of the report; the first is what others are compared with.
    """

    name: str
    facts: Mapping[str, Any]
    baselines: Mapping[str, Quality]
    centralised: Mapping[int, Mapping[str, Any]]
    cases: Sequence[Case]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The NDCG@10 whose time, bytes and energy are asked for.

    Attributes:
        share: of the best scenario's picked NDCG@10, where no value is given.
        ndcg: the value itself, or None.
    """

    share: float
    ndcg: float | None = None


def summarise(panels: Sequence[Panel], target: Target) -> dict[str, Any]:
    """The document; see the module."""
    return {
        "format": FORMAT,
        "confidence": CONFIDENCE,
        "panels": [_panel(panel, target) for panel in panels],
    }


def _panel(panel: Panel, target: Target) -> dict[str, Any]:
    cases = [case for case in panel.cases if case.outcomes]
    picked = [_quality(case, "picked")["ndcg_at_10"].mean for case in cases]
    ndcg = target.ndcg if target.ndcg is not None else target.share * max(picked, default=0.0)
    best = {"share_of_best": None if target.ndcg is not None else target.share}
    centralised = [entry["quality"] for entry in panel.centralised.values()]
    return {
        "name": panel.name,
        "facts": dict(panel.facts),
        "baselines": {name: quality.to_dict() for name, quality in panel.baselines.items()},
        "centralised": {
            measure: estimate([entry[measure] for entry in centralised]).to_dict()
            for measure in MEASURES
            if centralised
        },
        "target": {"ndcg_at_10": ndcg, **best},
        "differences": _differences(panel.cases),
        "scenarios": [_case(case, ndcg, cases[0]) for case in cases],
        "unfinished": {case.name: list(case.missing) for case in panel.cases if case.missing},
    }


def _case(case: Case, target: float, first: Case) -> dict[str, Any]:
    outcomes = list(case.outcomes.values())
    return {
        "name": case.name,
        "digest": case.digest,
        "settings": dict(case.settings),
        "seeds": list(case.outcomes),
        "other_code": list(case.other_code),
        "runs": {str(seed): outcome["digest"] for seed, outcome in case.outcomes.items()},
        "broken": sorted({name for outcome in outcomes for name in _broken(outcome)}),
        "devices": outcomes[0]["devices"],
        "picked": {name: one.to_dict() for name, one in _quality(case, "picked").items()},
        "end": {name: one.to_dict() for name, one in _quality(case, "end").items()},
        "spent": {axis: _last(outcomes, axis).to_dict() for axis in AXES},
        "updates": _last(outcomes, "updates").to_dict(),
        "to_target": {axis: _reach(case, first, axis, target) for axis in AXES},
        "courses": {axis: _mean_courses(outcomes, axis) for axis in AXES},
        "staleness": _staleness(outcomes),
        "groups": _groups(outcomes),
        "exposure": _exposure(outcomes),
    }


def _quality(case: Case, which: str) -> dict[str, Estimate]:
    moments = [
        _picked(outcome["quality"]) if which == "picked" else outcome["quality"][-1]
        for outcome in case.outcomes.values()
    ]
    return {name: estimate([moment[name] for moment in moments]) for name in MEASURES}


def _picked(quality: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The moment with the best validation; the last one where nothing is held out for that."""
    # None, too, at the beginning, as long as an aggregator that crashes has published nothing.
    validated = [moment for moment in quality if moment["validation_ndcg_at_10"] is not None]
    if not validated:
        return quality[-1]
    return max(validated, key=lambda moment: float(moment["validation_ndcg_at_10"]))


def _last(outcomes: Sequence[Outcome], name: str) -> Estimate:
    return estimate([outcome["quality"][-1][name] for outcome in outcomes])


def _course(outcome: Outcome, axis: str, measure: str = "ndcg_at_10") -> Course:
    quality = outcome["quality"]
    return Course(tuple(m[axis] for m in quality), tuple(m[measure] for m in quality))


def _mean_courses(outcomes: Sequence[Outcome], axis: str) -> dict[str, Any]:
    return {
        measure: mean_course([_course(one, axis, measure) for one in outcomes]).to_dict()
        for measure in MEASURES
    }


def _reach(case: Case, first: Case, axis: str, target: float) -> dict[str, Any]:
    """How much of something is spent until the target, and how many times that of the first."""
    reached = {seed: first_reach(_course(o, axis), target) for seed, o in case.outcomes.items()}
    spent = {seed: value for seed, value in reached.items() if value is not None}
    whole = estimate(list(spent.values())).to_dict() if len(spent) == len(reached) else None
    return {"reached_by": len(spent), "of": len(reached), "spent": whole} | {
        "times_first": _times(spent, first, axis, target) if whole else None
    }


def _times(
    spent: Mapping[int, float], first: Case, axis: str, target: float
) -> dict[str, Any] | None:
    """Of the first scenario's, seed by seed; None unless both reach the target with each seed."""
    pairs = []
    for seed, value in spent.items():
        outcome = first.outcomes.get(seed)
        base = None if outcome is None else first_reach(_course(outcome, axis), target)
        if not base or not value:
            return None
        pairs.append((value, base))
    return estimate_ratio(*zip(*pairs, strict=True)).to_dict()


def _staleness(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    counts = Counter[int]()
    for outcome in outcomes:
        counts.update({int(age): int(count) for age, count in outcome["staleness"]})
    merged = counts.total()
    return {
        "mean": sum(age * count for age, count in counts.items()) / max(1, merged),
        "max": max(counts, default=0),
        "histogram": sorted(counts.items()),
    }


def _groups(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Who took part, and what it got."""
    return [
        {
            "name": name,
            **{
                key: estimate(
                    [float(outcome["groups"][name][key]) for outcome in outcomes]
                ).to_dict()
                for key in ("devices", "updates", *MEASURES)
            },
        }
        for name in outcomes[0]["groups"]
    ]


def _exposure(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    values = [outcome["exposure"] for outcome in outcomes]
    found = [float(value) for value in values if value is not None]
    return estimate(found).to_dict() if len(found) == len(values) else None


def _broken(outcome: Outcome) -> list[str]:
    """Names of invariants that did not hold; see ``Audit``."""
    counts = outcome["audit"]
    return [name for name, count in counts.items() if count and name not in ("created", "accepted")]


def _differences(cases: Sequence[Case]) -> dict[str, list[Any]]:
    """Every setting in which two scenarios differ, as dotted keys, and its value in each."""
    flat = [_flat(case.settings) for case in cases]
    keys = dict.fromkeys(itertools.chain(*flat))
    rows = {key: [settings.get(key) for settings in flat] for key in keys}
    return {
        key: values
        for key, values in rows.items()
        if key not in ("name", "run.seed") and any(value != values[0] for value in values)
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
