"""What a person reads after a simulation."""

import json
from collections.abc import Mapping
from pathlib import Path

from device_sims.simulation.outcome import Outcome

__all__ = ["table", "write_outcome"]


def write_outcome(outcome: Outcome, path: Path) -> str:
    """Write the outcome as JSON; returns its digest, which equal runs share."""
    document = outcome.to_dict()
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return str(document["digest"])


def table(outcome: Outcome) -> str:
    """The outcome as plain text."""
    lines = [
        f"{'hours':>8}{'version':>9}{'updates':>9}{'kB up':>10}{'kB down':>10}{'joules':>10}"
        f"{'HR@10':>8}{'NDCG@10':>9}"
    ]
    lines += [
        f"{m.hours:>8.2f}{m.version:>9,}{m.updates:>9,}{m.bytes_up / 1e3:>10,.1f}"
        f"{m.bytes_down / 1e3:>10,.1f}{m.energy_j:>10,.1f}{m.hr_at_10:>8.3f}{m.ndcg_at_10:>9.3f}"
        for m in outcome.quality
    ]
    merged = sum(outcome.staleness.values())
    mean = sum(age * count for age, count in outcome.staleness.items()) / max(1, merged)
    faults, audit = _counted(outcome.faults), outcome.audit
    lines += [
        "",
        *(
            f"{name:<12} {group.devices:,} devices, {group.updates:,} updates, "
            f"HR@10 {group.hr_at_10:.3f}, NDCG@10 {group.ndcg_at_10:.3f}"
            for name, group in outcome.groups.items()
        ),
        "",
        f"devices      {outcome.devices:,}",
        f"staleness    {mean:.2f} on average, at most {max(outcome.staleness, default=0)}",
        f"faults       {faults or 'none'}",
        *([] if outcome.exposure is None else [f"exposure     {outcome.exposure:.3f}"]),
        f"refused      {_counted(outcome.refused) or 'none'}",
        f"updates      {audit.created:,} made, {audit.accepted:,} in the ledger",
        f"invariants   {'BROKEN: ' + ', '.join(audit.broken) if audit.broken else 'all hold'}",
    ]
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
