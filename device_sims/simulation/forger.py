"""The way out of a hostile device: each of its updates is replaced by a forged one, once."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from device_sims.simulation.attackers import Forge, Moment
from edge_agent.base import Base
from wire.codec import decode_delta, encode_delta
from wire.delta import FloatArray
from wire.messages import Update

__all__ = ["Forger"]

KEPT = 64
"""Forged updates that are remembered: what is sent again is the same as before."""


class Forger:
    """Forges the messages of one device.

    Args:
        number: the device's.
        forge: what it does to a delta.
        rng: for the encoder.
    """

    def __init__(self, number: int, forge: Forge, rng: np.random.Generator) -> None:
        self._number, self._forge, self._rng = number, forge, rng
        self._forged: dict[int, bytes] = {}

    def __call__(self, message: bytes, base: Base, private: Mapping[str, FloatArray]) -> bytes:
        """What is sent in the place of an update.

        Args:
            message: the update, as the agent would send it.
            base: the version that the device trained on last.
            private: its private parameters.
        """
        update = Update.decode(message)
        if update.sequence not in self._forged:
            specs = base.task.manifest.federated
            moment = Moment(
                self._number,
                update.base_version,
                base.parameters,
                private,
                decode_delta(update.payload, specs),
            )
            codec = base.announcement.codec
            payload = encode_delta(self._forge(moment), specs, codec, self._rng)
            self._forged[update.sequence] = replace(update, payload=payload).encode()
            if len(self._forged) > KEPT:
                del self._forged[next(iter(self._forged))]
        return self._forged[update.sequence]
