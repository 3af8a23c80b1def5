"""Hostile devices against each defence: what the model is still worth, and what was promoted.

One device for each user of MovieLens-100K trains in a loop, with the agent's training, the codec,
the aggregator's admission and its merge. Some of them send something else than they learned:

- ``flip``, ``x10``, ``x100``: a fifth sends its delta times -1, 10 or 100;
- ``promote-1``, ``promote-5``: 1 % or 5 % send what they learned, but for one row: that of an item
  that few users know. They move it to where the mean of their own user vectors points, as far as
  one update can when nothing is done against it;
- ``quiet-5``: 5 % push that row the same way, but no further than they move any other row.

HR@10 is over all users, ER@10 as ``device_sims.protocol.exposure`` says. Every user, hostile or
not, is examined with the private vector that its device learned. Prints each figure beside its
goal, then the table, and writes `runs/bench/attacks.json`.
"""

import argparse
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aggregator.admission import AdmissionPolicy, Admitted, admit
from aggregator.merging import Rule
from aggregator.norms import Norms
from device_sims.bench.deltas import Trainer
from device_sims.bench.figures import Figure, publish
from device_sims.datasets import Interactions, load_movielens, synthesise
from device_sims.scenario import Attack, Attackers
from device_sims.simulation.attackers import Moment, forge_of, hostile, sparsest_item
from edge_agent.errors import ProgramError, TrainingError
from wire.delta import Delta
from wire.manifest import ParameterSpec
from wire.messages import Update
from wire.policy import CodecPolicy

__all__ = ["ATTACKS", "DEFENCES", "Defence", "Outcome", "measure"]

DATA = Path(__file__).parents[3] / "shared" / "data" / "ml-100k" / "ratings.dat"
BUFFER, SERVER_LEARNING_RATE = 20, 4.0
QUALITY_GOAL, EXPOSURE_GOAL = 0.95, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """What the aggregator does about it.

    Attributes:
        rule: keys of the merge rule.
        norm_factor: of the adaptive bound on an update's norm; 0 for none.
    """

    rule: Mapping[str, float] = field(default_factory=dict)
    norm_factor: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        hr_at_10: over all users; 0 if the model gives no finite scores any more.
        er_at_10: exposure of the item that is, or might have been, promoted.
        refused_honest: share of the honest devices' updates that admission refused.
        refused_hostile: the same of the hostile ones', or NaN if there are none.
    """

    hr_at_10: float
    er_at_10: float
    refused_honest: float
    refused_hostile: float


BOOST = BUFFER / SERVER_LEARNING_RATE
ATTACKS: Mapping[str, Attackers] = {
    "none": Attackers(),
    "flip": Attackers(share=0.2, kind=Attack.SIGN_FLIP),
    "x10": Attackers(share=0.2, kind=Attack.SCALE, factor=10.0),
    "x100": Attackers(share=0.2, kind=Attack.SCALE, factor=100.0),
    "promote-1": Attackers(share=0.01, kind=Attack.COLLUDE, factor=BOOST),
    "promote-5": Attackers(share=0.05, kind=Attack.COLLUDE, factor=BOOST),
    "quiet-5": Attackers(share=0.05, kind=Attack.COLLUDE, factor=1.0, quiet=True),
}
DEFENCES: Mapping[str, Defence] = {
    "none": Defence(),
    "norm": Defence(norm_factor=AdmissionPolicy().norm_factor),
    "row-clip": Defence(rule={"row_clip": 5.0}),
    "trim": Defence(rule={"trim": 0.2}),
    "krum": Defence(rule={"krum_byzantine": 6}),
    "norm+clip": Defence(rule={"row_clip": 5.0}, norm_factor=AdmissionPolicy().norm_factor),
}


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="MovieLens-100K, any format")
    parser.add_argument("--passes", type=int, default=12, help="updates of each device in a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="runs at the same time")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--defences", nargs="+", choices=DEFENCES, default=list(DEFENCES))
    arguments = parser.parse_args()
    there = arguments.data.is_file()
    interactions = load_movielens(arguments.data) if there else synthesise(users=200)
    runs = [(attack, defence) for attack in arguments.attacks for defence in arguments.defences]
    run = partial(_run, interactions, arguments.passes, arguments.seed)
    with ProcessPoolExecutor(arguments.processes) as pool:
        found = list(tqdm(pool.map(run, runs), total=len(runs), unit="run"))
    outcomes = dict(zip(runs, found, strict=True))
    publish("attacks", list(_figures(outcomes)))
    _print_table(outcomes)


def measure(
    interactions: Interactions, attack: Attackers, defence: Defence, *, passes: int, seed: int = 0
) -> Outcome:
    """Train a fleet in which some devices are hostile, and examine what came of it.

    Args:
        interactions: the data.
        attack: what hostile devices do.
        defence: what the aggregator does.
        passes: updates of each device.
        seed: of everything drawn, hostile devices included.
    """
    users = interactions.user_count
    enemies = hostile(replace(attack, seed=seed), users)
    target = sparsest_item(interactions.items, interactions.item_count)
    forge = forge_of(attack, target, np.random.default_rng(seed))
    gate = _Gate(defence.norm_factor)
    keys = {"buffer_size": BUFFER, "server_learning_rate": SERVER_LEARNING_RATE, **defence.rule}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            interactions,
            CodecPolicy(),
            Path(folder) / "bundle",
            # A model that has run away has no grid to be published on.
            rounded=False,
            seed=seed,
            rule=Rule.from_dict(keys),
            forge=lambda moment: forge(moment) if moment.user in enemies else moment.delta,
            gate=gate,
        )
        gate.specs = trainer.specs
        for _ in range(passes):
            _train_all(trainer)
        refused = gate.refused.total(), sum(gate.refused[user] for user in enemies)
        honest = (users - len(enemies)) * passes
        return Outcome(
            hr_at_10=_hr_at_10(trainer),
            er_at_10=_er_at_10(trainer, target),
            refused_honest=(refused[0] - refused[1]) / honest,
            refused_hostile=refused[1] / (len(enemies) * passes) if enemies else math.nan,
        )


class _Gate:
    """Admission as the aggregator does it, with the norms of what it accepted before."""

    def __init__(self, norm_factor: float) -> None:
        self._policy, self._norms = AdmissionPolicy(norm_factor=norm_factor, max_norm=1e30), Norms()
        self.specs: Sequence[ParameterSpec] = ()
        self.refused: Counter[int] = Counter()

    def __call__(self, moment: Moment, payload: bytes) -> Delta | None:
        update = Update(
            task="0" * 32, sequence=1, base_version=moment.version, examples=1, payload=payload
        )
        verdict = admit(
            update,
            specs=self.specs,
            version=moment.version,
            policy=self._policy,
            norms=self._norms,
        )
        if isinstance(verdict, Admitted):
            self._norms = self._norms.plus(verdict.norm)
            return verdict.delta
        self.refused[moment.user] += 1
        return None


def _train_all(trainer: Trainer) -> None:
    for user in trainer.order():
        try:
            trainer.update(user)
        except TrainingError:
            # The model has run away; the device sends nothing, as an agent would.
            continue


def _hr_at_10(trainer: Trainer) -> float:
    try:
        return trainer.examine()[1].hr_at_10
    except ProgramError:
        return 0.0


def _er_at_10(trainer: Trainer, item: int) -> float:
    try:
        return trainer.exposure(item)
    except ProgramError:
        return 0.0


def _run(interactions: Interactions, passes: int, seed: int, run: tuple[str, str]) -> Outcome:
    attack, defence = run
    # An update's matrices are tiny; threads for their algebra only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        return measure(interactions, ATTACKS[attack], DEFENCES[defence], passes=passes, seed=seed)


def _figures(outcomes: Mapping[tuple[str, str], Outcome]) -> Iterator[Figure]:
    for (attack, defence), outcome in outcomes.items():
        plain = outcomes.get(("none", "none"))
        if plain is not None and (attack, defence) != ("none", "none"):
            yield _quality(f"HR@10, {attack} against {defence}", outcome, plain)
        if ATTACKS[attack].kind.promotes:
            yield _exposure(f"ER@10, {attack} against {defence}", outcome)


def _quality(figure: str, outcome: Outcome, plain: Outcome) -> Figure:
    return Figure(
        figure=figure,
        value=outcome.hr_at_10,
        unit="",
        goal=round(QUALITY_GOAL * plain.hr_at_10, 4),
        at_least=True,
        compared_with=f"without either {plain.hr_at_10:.3f}; goal: {QUALITY_GOAL:.0%} of it; "
        f"refused: honest {outcome.refused_honest:.1%}, hostile {outcome.refused_hostile:.1%}",
    )


def _exposure(figure: str, outcome: Outcome) -> Figure:
    return Figure(
        figure=figure,
        value=outcome.er_at_10,
        unit="",
        goal=EXPOSURE_GOAL,
        at_least=False,
        compared_with=f"HR@10 {outcome.hr_at_10:.3f}",
    )


def _print_table(outcomes: Mapping[tuple[str, str], Outcome]) -> None:
    defences = list(dict.fromkeys(defence for _, defence in outcomes))
    print(f"| HR@10 / ER@10 | {' | '.join(defences)} |")
    print("|---" * (len(defences) + 1) + "|")
    for attack in dict.fromkeys(attack for attack, _ in outcomes):
        found = [outcomes[attack, defence] for defence in defences]
        cells = " | ".join(f"{one.hr_at_10:.3f} / {one.er_at_10:.3f}" for one in found)
        print(f"| {attack} | {cells} |")


if __name__ == "__main__":
    main()
