"""What a person reads after a simulation."""

import json
from pathlib import Path

from device_sims.simulation.run import Outcome

__all__ = ["table", "write_outcome"]


def write_outcome(outcome: Outcome, path: Path) -> str:
    """Write the outcome as JSON; returns its digest, which equal runs share."""
    document = outcome.to_dict()
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return str(document["digest"])


def table(outcome: Outcome) -> str:
    """The outcome as plain text."""
    lines = [f"{'hours':>8}{'version':>9}{'updates':>9}{'kB up':>10}{'HR@10':>8}{'NDCG@10':>9}"]
    lines += [
        f"{m.hours:>8.2f}{m.version:>9,}{m.updates:>9,}{m.bytes_up / 1e3:>10,.1f}"
        f"{m.hr_at_10:>8.3f}{m.ndcg_at_10:>9.3f}"
        for m in outcome.quality
    ]
    merged = sum(outcome.staleness.values())
    mean = sum(age * count for age, count in outcome.staleness.items()) / max(1, merged)
    faults = ", ".join(f"{count:,} {kind}" for kind, count in outcome.faults.items())
    audit = outcome.audit
    lines += [
        "",
        f"devices      {outcome.devices:,}",
        f"staleness    {mean:.2f} on average, at most {max(outcome.staleness, default=0)}",
        f"faults       {faults or 'none'}",
        f"updates      {audit.created:,} made, {audit.accepted:,} in the ledger",
        f"invariants   {'BROKEN: ' + ', '.join(audit.broken) if audit.broken else 'all hold'}",
    ]
    return "\n".join(lines)
