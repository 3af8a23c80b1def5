"""The deltas that a fleet encodes, without the fleet: its training, codec and merging in a loop.

For measurements of the codec, which need deltas of a half-trained model, with what earlier updates
left out of them. Nothing is sent and nobody waits: every update starts from the newest version.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.merging import Contribution, Rule, ServerState, merge
from device_sims.datasets import Interactions, Split, split_latest
from device_sims.model import Model, make_recommender
from device_sims.presets import preset
from edge_agent.history import History
from edge_agent.local_update import train
from edge_agent.runtimes.trial import open_update
from export import build_bundle
from wire.bundle import Bundle
from wire.codec import decode_delta, encode_delta
from wire.delta import Delta, FloatArray, Tensor, add
from wire.feedback import compensate, leftover
from wire.manifest import ParameterSpec
from wire.parameters import map_parameters
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["Learned", "learn"]

BUFFER = 20


@dataclass(frozen=True, slots=True)
class Learned:
    """What a device has to encode.

    Attributes:
        delta: what it learned, and what earlier updates left out.
        payload: that, encoded.
    """

    delta: Delta
    payload: bytes


def learn(
    interactions: Interactions,
    codec: CodecPolicy,
    *,
    passes: int,
    recommender: str = "mf",
    dataset: str = "movielens",
) -> tuple[tuple[ParameterSpec, ...], list[list[Learned]]]:
    """Train on a data set with one device for each user, all in this process.

    Args:
        interactions: the data.
        codec: how deltas are encoded.
        passes: how often each device trains.
        recommender: what is trained.
        dataset: whose preset is taken.

    Returns:
        The federated parameters, and for each pass what every device learned.
    """
    values = preset(recommender, dataset)
    training = TrainingPolicy(
        **{name: values[name] for name in ("learning_rate", "epochs", "batch_size")}
    )
    model = Model(
        recommender=recommender,
        options=values["options"],
        optimizer=values["optimizer"],
        training=training,
        codec=codec,
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = build_bundle(
            make_recommender(model, interactions, seed=0),
            out=Path(folder) / "bundle",
            optimizer=model.optimizer,
            training=training,
            codec=codec,
        )
        split = split_latest(interactions)
        return bundle.manifest.federated, list(_passes(bundle, split, passes))


def _passes(bundle: Bundle, split: Split, passes: int) -> Iterator[list[Learned]]:
    manifest, codec, rule = bundle.manifest, bundle.manifest.codec, Rule()
    program, rng = open_update(bundle, "onnx"), np.random.default_rng(0)
    shared: dict[str, FloatArray] = dict(map_parameters(bundle.root / manifest.initial))
    frozen = dict(map_parameters(bundle.root / manifest.frozen))
    start = dict(map_parameters(bundle.root / manifest.private))
    state, buffer = ServerState(0, shared), list[Contribution]()
    private: dict[int, dict[str, FloatArray]] = {}
    residuals: dict[int, dict[str, Tensor]] = {}
    for _ in range(passes):
        found = []
        for user in rng.permutation(split.user_count).tolist():
            history = History(split.train.items_of(user), split.train.context_of(user))
            base = {**frozen, **state.parameters}
            own = private.get(user, start)
            learned = train(manifest, base, own, history, manifest.training, rng, program)
            residual = add({}, residuals.get(user, {}), codec.residual_keep)
            compensated = compensate(learned.delta, residual, codec)
            payload = encode_delta(compensated, manifest.federated, codec, rng)
            decoded = decode_delta(payload, manifest.federated)
            residuals[user] = leftover(residual, compensated, decoded)
            private[user] = dict(learned.private)
            found.append(Learned(compensated, payload))
            buffer.append(Contribution(len(buffer), state.version, learned.examples, decoded))
            if len(buffer) == BUFFER:
                state, buffer = merge(state, buffer, rule), []
        yield found
