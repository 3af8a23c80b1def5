"""The digest of a version: of what every merge up to it made, at the cost of what each changed.

Version 0 has the SHA-256 of its file. Every later one has that of the digest before it, the rule,
and the new values of everything that its merge changed, the rule's memory included. So two versions
with the same digest came of the same start by the same changes, to the bit, and nobody has to read
a whole table to say so. A version that no merge made has that of the digest that it goes on from
and of its origin, which names the digest of the version before.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from aggregator.ledger import Origin
from aggregator.merging import Change, Step

__all__ = ["next_digest", "origin_digest"]


def next_digest(before: str, rule: Mapping[str, Any], step: Step) -> str:
    """The digest of the version that a step makes.

    Args:
        before: the digest of the version before, in hex.
        rule: as it is stored with the version.
        step: the merge.
    """
    digest = hashlib.sha256(bytes.fromhex(before))
    digest.update(_line("rule", rule))
    for kind, changes in (("parameter", step.parameters), ("memory", step.memory)):
        for name, change in sorted(changes.items()):
            _add(digest, kind, name, change)
    digest.update(_line("dropped", sorted(step.dropped)))
    return digest.hexdigest()


def origin_digest(of: str, origin: Origin) -> str:
    """The digest of a version that no merge made.

    Args:
        of: the digest of what it goes on from, as it was folded for it, in hex.
        origin: where it comes from.
    """
    digest = hashlib.sha256(bytes.fromhex(of))
    digest.update(_line("origin", origin.to_dict()))
    return digest.hexdigest()


def _add(digest: Any, kind: str, name: str, change: Change) -> None:
    values = np.ascontiguousarray(change.values)
    rows = None if change.rows is None else len(change.rows)
    digest.update(_line(kind, [name, rows, values.dtype.str, list(change.shape)]))
    if change.rows is not None:
        digest.update(np.ascontiguousarray(change.rows, "<i8"))
    digest.update(values)


def _line(kind: str, value: Any) -> bytes:
    return json.dumps([kind, value], sort_keys=True, separators=(",", ":")).encode() + b"\n"
