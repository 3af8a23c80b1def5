"""The deltas that a fleet encodes, without the fleet: its training, codec and merging in a loop.

For measurements of the codec, which need deltas of a half-trained model, with what earlier updates
left out of them. Nothing is sent and nobody waits: every update starts from the newest version.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.merging import Contribution, Rule, ServerState, merge
from aggregator.publication import choose_grid
from device_sims.datasets import Interactions, Split, split_latest
from device_sims.examiner import Examiner
from device_sims.model import Model, make_recommender
from device_sims.presets import preset
from device_sims.protocol import Quality
from device_sims.simulation.attackers import Forge, Moment
from edge_agent.history import History
from edge_agent.local_update import train
from edge_agent.runtimes.trial import open_update
from export import build_bundle
from wire.codec import decode_delta, encode_and_decode
from wire.delta import Delta, FloatArray, Tensor, add
from wire.feedback import compensate, leftover
from wire.manifest import ParameterSpec
from wire.parameters import Table, map_parameters, quantise_rows
from wire.patch import encode_patch, finer, on_grid
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["Gate", "Learned", "Pass", "Trainer"]

STRIDE = 10
"""Versions from one of a device's updates to its next, where bytes down are measured."""


Gate = Callable[[Moment, bytes], Delta | None]
"""The delta of a payload, or None if it is refused."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a device has to encode.

    Attributes:
        delta: what it learned, and what earlier updates left out.
        payload: that, encoded.
    """

    delta: Delta
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """What came of one update of every device.

    Attributes:
        sizes: bytes of each device's encoded delta, in the order of their updates.
        learned: those deltas, if they were to be kept; otherwise empty.
        validation: quality on the validation items afterwards.
        test: quality on the test items.
        down: for each tenth version, bytes of the patch from ten versions before, and of one from
            nothing.
    """

    sizes: Sequence[int]
    down: Sequence[tuple[int, int]]
    learned: Sequence[Learned]
    validation: Quality
    test: Quality


class Trainer:
    """Trains on a data set with one device for each user, all in this process.

    Args:
        interactions: the data.
        codec: how deltas are encoded.
        folder: for the bundle; nothing may be there.
        rounded: whether devices start from what is published of a version, as they do, or from its
            exact parameters, for comparison.
        seed: of the initial parameters and of everything drawn.
        rule: how they are merged.
        forge: what devices make of their deltas; honest ones nothing.
        gate: what is refused; None for nothing.
    """

    def __init__(
        self,
        interactions: Interactions,
        codec: CodecPolicy,
        folder: Path,
        *,
        rounded: bool = True,
        seed: int = 0,
        rule: Rule | None = None,
        forge: Forge = lambda moment: moment.delta,
        gate: Gate | None = None,
    ) -> None:
        self._rule, self._forge, self._gate = rule or Rule(), forge, gate or self._decode
        values = preset("mf", "movielens")
        options = ("learning_rate", "epochs", "batch_size")
        training = TrainingPolicy(**{name: values[name] for name in options})
        model = Model(
            recommender="mf",
            options=values["options"],
            optimizer=values["optimizer"],
            training=training,
            codec=codec,
        )
        self._bundle = bundle = build_bundle(
            make_recommender(model, interactions, seed=seed),
            out=folder,
            optimizer=model.optimizer,
            training=training,
            codec=codec,
        )
        self._split = split_latest(interactions)
        self._examiner = Examiner(bundle, self._split)
        self._program, self._rng = open_update(bundle, "onnx"), np.random.default_rng(seed)
        self._frozen = self._map(bundle.manifest.frozen)
        self._start = self._map(bundle.manifest.private)
        self._state = ServerState(0, self._map(bundle.manifest.initial))
        self._rounded, self._exponents = rounded, dict[str, int]()
        self._shared = self._published()
        self._earlier, self._down = (self._shared, self._exponents), list[tuple[int, int]]()
        self._buffer: list[Contribution] = []
        self._private: dict[int, dict[str, FloatArray]] = {}
        self._residuals: dict[int, dict[str, Tensor]] = {}

    @property
    def specs(self) -> tuple[ParameterSpec, ...]:
        """The federated parameters."""
        return self._bundle.manifest.federated

    @property
    def split(self) -> Split:
        """The data."""
        return self._split

    def train(self, *, keep: bool = False) -> Pass:
        """Have each device train once, in random order; the deltas of a pass take 100 MB."""
        sizes, learned = [], []
        for user in self.order():
            update = self.update(user)
            sizes.append(len(update.payload))
            learned += [update] if keep else []
        validation, test = self.examine()
        down, self._down = self._down, []
        return Pass(sizes, down, learned, validation, test)

    def order(self) -> list[int]:
        """Every user once, in random order."""
        users: list[int] = self._rng.permutation(self._split.user_count).tolist()
        return users

    def examine(self) -> tuple[Quality, Quality]:
        """Quality of the newest version on the validation and on the test items."""
        return self._examiner.examine(self._shared, self._private_of)

    def exposure(self, item: int) -> float:
        """The share of users to whom the newest version shows an item; see ``exposure``."""
        return self._examiner.exposure(self._shared, self._private_of, item)

    def examine_int8(self) -> Quality:
        """Quality on the test items with the newest version's tables as int8."""
        parameters = self._state.parameters
        tables: dict[str, Table] = {
            spec.name: quantise_rows(parameters[spec.name]) for spec in self.specs if spec.is_table
        }
        return self._examiner.examine({**parameters, **tables}, self._private_of)[1]

    def update(self, user: int) -> Learned:
        """One update of one device, merged when the buffer is full.

        Raises:
            TrainingError: a result is not finite; nothing has changed.
        """
        manifest = self._bundle.manifest
        codec, own = manifest.codec, self._private.get(user, self._start)
        items, context = self._split.train.items_of(user), self._split.train.context_of(user)
        base = {**self._frozen, **self._shared}
        trained = train(
            manifest,
            base,
            own,
            History(items, context),
            manifest.training,
            self._rng,
            self._program,
        )
        residual = add({}, self._residuals.get(user, {}), codec.residual_keep)
        compensated = compensate(trained.delta, residual, codec)
        version = self._state.version
        moment = Moment(user, version, self._shared, trained.private, compensated)
        sent = self._forge(moment)
        payload, decoded = encode_and_decode(sent, manifest.federated, codec, self._rng)
        self._residuals[user] = leftover(residual, sent, decoded)
        self._private[user] = dict(trained.private)
        if (accepted := self._gate(moment, payload)) is not None:
            self._merge(Contribution(len(self._buffer), version, trained.examples, accepted))
        return Learned(sent, payload)

    def _private_of(self, user: int) -> dict[str, FloatArray]:
        return self._private.get(user, {})

    def _decode(self, _moment: Moment, payload: bytes) -> Delta:
        return decode_delta(payload, self.specs)

    def _merge(self, contribution: Contribution) -> None:
        self._buffer.append(contribution)
        if len(self._buffer) == self._rule.buffer_size:
            self._state = merge(self._state, self._buffer, self._rule)
            self._buffer = []
            self._shared = self._published()
            if self._rounded and self._state.version % STRIDE == 0:
                self._measure_down()

    def _published(self) -> Mapping[str, FloatArray]:
        exact = self._state.parameters
        if not self._rounded:
            return exact
        self._exponents = choose_grid(exact, self.specs, self._exponents)
        return {name: on_grid(exact[name], e) for name, e in self._exponents.items()}

    def _measure_down(self) -> None:
        before, exponents = self._earlier
        both = finer(self._exponents, exponents)
        patch = encode_patch(before, self._shared, self.specs, both)
        whole = encode_patch(None, self._shared, self.specs, self._exponents)
        self._down.append((len(patch), len(whole)))
        self._earlier = (self._shared, self._exponents)

    def _map(self, path: str) -> dict[str, FloatArray]:
        return dict(map_parameters(self._bundle.root / path))
