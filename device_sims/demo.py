"""The main job, end to end: export, broker, aggregator, fleet, report."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from device_sims.brokers import start_broker
from device_sims.datasets import Interactions, Split, split_latest
from device_sims.examiner import Examiner, newest_version
from device_sims.fleet import Fleet, FleetPlan, broker_config, device_name
from device_sims.folder import run_folder
from device_sims.model import Model, make_recommender
from device_sims.progress import Progress
from device_sims.protocol import Quality, best_round, evaluate, own_frequency, popularity
from device_sims.report import (
    ByteCounts,
    Report,
    Round,
    StalenessFigures,
    UpdateCounts,
    write_report,
)
from device_sims.service import USER, AggregatorProcess
from edge_agent.config import TlsFiles
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.manifest import BatchKind

if TYPE_CHECKING:
    from export.recommender import Recommender

__all__ = ["DemoSettings", "run_demo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """One run.

    Attributes:
        out: folder for everything that the run writes; what an earlier run left there goes.
        broker: ``auto``, ``mosquitto``, ``embedded`` or a URL.
        model: what is trained.
        plan: how the fleet behaves.
        service: settings of the aggregator, by key.
        keep: leave the service running afterwards, until Ctrl-C.
    """

    out: Path
    broker: str
    model: Model
    plan: FleetPlan
    service: Mapping[str, Any]
    keep: bool


def run_demo(settings: DemoSettings, interactions: Interactions) -> Report:
    """Train a fleet on a data set, user u on device u, and write the report.

    Ctrl-C ends the training early: what was done until then is reported.

    Raises:
        RecommenderError: the recommender refuses its options, or does not fit the data.
        ExportError: the recommender cannot be exported.
        FolderError: the folder holds something else, or is in use.
        BrokerError: the broker cannot be started or reached.
        FleetError: the fleet made no progress.
    """
    split = split_latest(interactions)
    recommender = make_recommender(settings.model, interactions, seed=settings.plan.seed)
    with ExitStack() as stack:
        out = stack.enter_context(run_folder(settings.out))
        # An update's matrices are tiny; threads for their algebra only wait for each other.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        print(f"exporting {recommender.kind} for {split.item_count:,} items", flush=True)
        print(f"local training: {_words(settings.model)}", flush=True)
        bundle = _export(settings.model, recommender, out / "bundle")
        users = {name: secrets.token_urlsafe(12) for name in _user_names(split.user_count)}
        broker = stack.enter_context(start_broker(settings.broker, out / "broker", users))
        print(f"broker: {broker.describe()}", flush=True)
        passwords = users if broker.kind == "mosquitto" else {}
        aggregator = stack.enter_context(
            AggregatorProcess(
                out / "aggregator",
                broker=broker.url,
                bundle=bundle.root,
                password=passwords.get(USER),
                settings=settings.service,
            )
        )
        print(f"dashboard: {aggregator.client.url}/dashboard", flush=True)
        fleet = Fleet(
            out / "devices",
            split=split,
            aggregator=aggregator.client.url,
            broker=lambda name: broker_config(broker.url, name, passwords.get(name), TlsFiles()),
            plan=settings.plan,
            # The first action of a sequence is predicted from nothing, so it is no sample.
            least_history=2 if bundle.manifest.batch is BatchKind.SEQUENCE else 1,
        )
        stack.callback(fleet.stop)
        examiner = Examiner(bundle, split)
        newest = partial(newest_version, aggregator.client, bundle, out)
        started = time.monotonic()
        rounds = _train(fleet, examiner, newest)
        report = _report(
            settings,
            interactions,
            split,
            fleet,
            rounds,
            bundle=bundle,
            broker=broker.describe(),
            summary=aggregator.client.get(f"/v1/tasks/{bundle.task}/summary"),
            wall_seconds=time.monotonic() - started,
        )
        write_report(report, out)
        print("", report.table(), *report.remarks(), "", sep="\n")
        print(f"report: {out / 'report.html'} and report.json", flush=True)
        if settings.keep:
            _wait(aggregator.client.url)
    return report


def _export(model: Model, recommender: "Recommender", folder: Path) -> Bundle:
    # Only here: PyTorch takes seconds to import, and an error in the settings should not.
    from export import build_bundle

    return build_bundle(
        recommender,
        out=folder,
        optimizer=model.optimizer,
        training=model.training,
        codec=model.codec,
    )


def _words(model: Model) -> str:
    training = model.training
    epochs = "1 epoch" if training.epochs == 1 else f"{training.epochs} epochs"
    return (
        f"{model.optimizer}, learning rate {training.learning_rate:g}, {epochs}, "
        f"{training.batch_size} samples a step"
    )


def _user_names(devices: int) -> list[str]:
    return [USER, *(device_name(number) for number in range(devices))]


def _train(
    fleet: Fleet,
    examiner: Examiner,
    newest: Callable[[], tuple[int, Mapping[str, FloatArray]]],
) -> list[Round]:
    """Run all passes and evaluate after each; on Ctrl-C, those that were finished."""
    rounds: list[Round] = []
    started = time.monotonic()

    def examine(number: int) -> Round:
        version, federated = newest()
        validation, test = examiner.examine(federated, fleet.private_parameters)
        return Round(
            number=number,
            version=version,
            wall_seconds=time.monotonic() - started,
            uplink_bytes=sum(fleet.traffic.sent),
            validation=validation,
            test=test,
        )

    with Progress(fleet) as progress:
        rounds.append(examine(0))
        progress.round(rounds[0])
        try:
            for number in fleet.run():
                rounds.append(examine(number))
                progress.round(rounds[-1])
        except KeyboardInterrupt:
            print("\nstopped: reporting what was finished", flush=True)
    return rounds


def _report(
    settings: DemoSettings,
    interactions: Interactions,
    split: Split,
    fleet: Fleet,
    rounds: list[Round],
    *,
    bundle: Bundle,
    broker: str,
    summary: Mapping[str, Any],
    wall_seconds: float,
) -> Report:
    sent, received = fleet.traffic.sent, fleet.traffic.received
    updates = summary["updates"]
    histogram = [(int(staleness), int(count)) for staleness, count in summary["staleness"]]
    merged = max(sum(count for _, count in histogram), 1)
    return Report(
        dataset=interactions.name,
        notes=interactions.notes,
        context={field.name: field.labels for field in interactions.context},
        features=interactions.feature_names,
        recommender=settings.model.recommender,
        next_action=split.repeats,
        items=split.item_count,
        interactions=len(interactions),
        devices=split.user_count,
        trainers=fleet.trainers,
        passes=settings.plan.passes,
        versions=int(summary["version"]),
        wall_seconds=wall_seconds,
        broker=broker,
        picked_round=best_round([entry.validation for entry in rounds]),
        rounds=rounds,
        baselines=_baselines(split),
        updates=UpdateCounts(
            published=len(sent),
            accepted=int(updates["accepted"]),
            duplicate=int(updates["duplicate"]),
            rejected=int(updates["rejected"]),
        ),
        uplink=ByteCounts(
            mean=float(np.mean(sent)) if sent else 0.0,
            p99=float(np.percentile(sent, 99)) if sent else 0.0,
            total=sum(sent),
            dense_mean=bundle.manifest.dense_bytes,
        ),
        downlink=ByteCounts(
            mean=float(np.mean(received)) if received else 0.0, total=sum(received)
        ),
        staleness=StalenessFigures(
            mean=sum(staleness * count for staleness, count in histogram) / merged,
            max=max((staleness for staleness, _ in histogram), default=0),
            histogram=histogram,
        ),
        settings={
            "model": asdict(settings.model),
            "plan": asdict(settings.plan),
            "service": dict(settings.service),
        },
    )


def _baselines(split: Split) -> dict[str, Quality]:
    found = {"popularity": evaluate(popularity(split), split, which="test")}
    if split.repeats:
        own = own_frequency(split, which="test")
        found["own_frequency"] = evaluate(own, split, which="test")
    return found


def _wait(url: str) -> None:
    print(f"the service stays up: {url}/dashboard (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(flush=True)
