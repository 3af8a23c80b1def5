"""How a fleet is let in at a broker and an aggregator that somebody else runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_sims.scenario import ScenarioError
from edge_agent.config import TlsFiles

__all__ = ["Access", "read_passwords"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What connections need.

    Attributes:
        tls: files for an ``mqtts`` broker and an ``https`` aggregator, the same for all devices.
        passwords: at the broker, by user name, a device's being its id; empty connects anonymously.
    """

    tls: TlsFiles = field(default_factory=TlsFiles)
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)

    def check(self, users: list[str]) -> None:
        """Refuse passwords that some users lack; raises ScenarioError."""
        missing = [user for user in users if user not in self.passwords]
        if self.passwords and missing:
            others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
            raise ScenarioError(
                f"--passwords has no {missing[0]}{others}; expected a line NAME:PASSWORD for each "
                f"of {len(users):,} users, from {users[0]} to {users[-1]}"
            )


def read_passwords(file: Path) -> dict[str, str]:
    """Read lines NAME:PASSWORD, as `mosquitto_passwd -U` takes them; blank lines are skipped.

    Raises:
        ScenarioError: the file cannot be read, or has another line; a password is not quoted.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ScenarioError(f"--passwords {file} cannot be read: {error}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, password = line.partition(":")
        if not (name and colon and password) or name in found:
            raise ScenarioError(
                f"--passwords {file}, line {number}: expected NAME:PASSWORD, and each name once"
            )
        found[name] = password
    if not found:
        raise ScenarioError(f"--passwords {file} is empty; expected lines NAME:PASSWORD")
    return found
