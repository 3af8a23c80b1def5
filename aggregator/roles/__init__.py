"""What a process does: all of it, or one part beside processes that do the others."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from aggregator.roles.api import ApiPart
from aggregator.roles.ingest import IngestPart
from aggregator.roles.merge import MergePart
from aggregator.roles.part import Part, ServiceError, Surroundings
from aggregator.roles.whole import WholePart
from aggregator.settings import Role

__all__ = ["PARTS", "Part", "ServiceError", "Surroundings"]

PARTS: Mapping[Role, Callable[[Surroundings, ExitStack], Part]] = {
    Role.ALL: WholePart,
    Role.INGEST: IngestPart,
    Role.MERGE: MergePart,
    Role.API: ApiPart,
}
"""Makes the part of a role; what it opens is closed with the stack."""
