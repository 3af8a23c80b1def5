"""The energy model: what taking part costs a device on top of being switched on.

    J = train_w * seconds of training + up_j_mb * MB sent + down_j_mb * MB received

Linear in time and bytes: no wake-ups, no tail of a mobile radio after a message, no idle current.
Every attempt to send counts, and a download in the bytes that came over the network. Receipts and
announcements, some 150 bytes each, do not.

The defaults are **assumed**, none of them is a measurement of ours. Radio: the slopes of the linear
Wi-Fi model of Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE
Networks", MobiSys 2012, 283 mW per Mbit/s up and 137 mW per Mbit/s down, which are 2.27 and 1.10
joules a million bytes. (Their LTE slopes, 438 and 52, are 3.51 and .42; the 1.3 W that an LTE radio
takes as long as it is awake come on top, and this model has no place for them.) Training: 2 W, of
the order of what a busy core adds to a small board.
"""

from dataclasses import dataclass

__all__ = ["Energy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What a device's work costs.

    Attributes:
        train_w: watts of training on top of an idle device.
        up_j_mb: joules a million bytes sent.
        down_j_mb: joules a million bytes received.
    """

    train_w: float
    up_j_mb: float
    down_j_mb: float

    def of(
        self, *, trained_s: float = 0.0, up_bytes: float = 0.0, down_bytes: float = 0.0
    ) -> float:
        """Joules that some training and some traffic take."""
        radio = self.up_j_mb * up_bytes + self.down_j_mb * down_bytes
        return self.train_w * trained_s + radio / 1e6
