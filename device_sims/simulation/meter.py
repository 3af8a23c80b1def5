"""What taking part costs the fleet: bytes and energy."""

from device_sims.nature import Nature

__all__ = ["Meter"]


class Meter:
    """Adds up over all devices.

    Attributes:
        bytes_up: of updates, every attempt counted.
        bytes_down: downloaded for updates.
        energy_j: joules of training and traffic; see ``device_sims.nature.energy``.
    """

    def __init__(self) -> None:
        self.bytes_up = self.bytes_down = 0
        self.energy_j = 0.0

    def sent(self, nature: Nature, size_bytes: int) -> None:
        """A device sent a message."""
        self.bytes_up += size_bytes
        self.energy_j += nature.energy.of(up_bytes=size_bytes)

    def received(self, nature: Nature, size_bytes: int) -> None:
        """A device downloaded something."""
        self.bytes_down += size_bytes
        self.energy_j += nature.energy.of(down_bytes=size_bytes)

    def trained(self, nature: Nature, seconds: float) -> None:
        """A device trained."""
        self.energy_j += nature.energy.of(trained_s=seconds)
