"""What a person can ask a device, its agent running or not: its state and recommendations."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.config import AgentConfig
from edge_agent.errors import StoreError
from edge_agent.evaluation import recommend
from edge_agent.history import UNKNOWN, History, IntArray
from edge_agent.interactions import check_context
from edge_agent.runtimes import open_runtime
from edge_agent.state_dir import open_downloads, open_store
from edge_agent.task import map_checked, map_for_scoring, open_task
from wire.manifest import Manifest
from wire.parameters import Table

__all__ = ["DeviceStatus", "recommendations", "status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """The state of a device.

    Attributes:
        device: its id.
        task: 32 hex characters; None before the first announcement.
        recommender: the task's name for people; None before it was downloaded.
        version: the version on the device.
        interactions: length of the history.
        counters: see ``DurableState.counters``.
        waiting: updates without receipt.
        waiting_bytes: their size.
        evaluation: the last one, by metric.
    """

    device: str
    task: str | None
    recommender: str | None
    version: int | None
    interactions: int
    counters: dict[str, int]
    waiting: int
    waiting_bytes: int
    evaluation: dict[str, float] | None


def status(config: AgentConfig) -> DeviceStatus:
    """The state of the device.

    Raises:
        StoreError: there is no database.
    """
    store = open_store(config)
    try:
        task = config.task or store.get("task")
        raw = store.manifest(task) if task else None
        base: dict[str, Any] = store.get("base") or {}
        waiting = store.waiting()
        return DeviceStatus(
            device=config.device,
            task=task,
            recommender=Manifest.from_json(raw).name if raw else None,
            version=base.get("version") if base.get("task") == task else None,
            interactions=store.count_interactions(),
            counters=store.counters(),
            waiting=waiting.updates,
            waiting_bytes=waiting.size_bytes,
            evaluation=store.get("evaluation"),
        )
    finally:
        store.close()


def recommendations(
    config: AgentConfig,
    top: int,
    context: Mapping[str, int],
    *,
    again: bool = False,
    parameters: Path | None = None,
) -> list[tuple[int, float]]:
    """The best items, from the model on the device's disk, without network.

    Args:
        config: settings of the device.
        top: how many items, at least 0.
        context: ids of the context to recommend in, by context field; other fields are as in the
            newest interaction.
        again: whether items of the history may be recommended.
        parameters: a file of federated and frozen parameters to score with, as `rivulet-export
            quantise` writes it; None for the version on the device's disk.

    Raises:
        InteractionError: the task has no such context field, or no such id of it.
        AgentError: no model was downloaded yet, or it cannot be used.
    """
    store = open_store(config)
    try:
        shared: Mapping[str, Table]
        name, source = config.task or store.get("task"), open_downloads(config)
        base = store.get("base")
        snapshot = source.held(base["sha256"]) if base and base["task"] == name else None
        if name is None or store.manifest(name) is None:
            raise StoreError("no model is on this device yet; start the agent and let it train")
        task = open_task(name, store=store, source=source, runtime=open_runtime(config.runtime))
        manifest = task.manifest
        check_context(context, manifest)
        history = store.history(manifest.context).known_to(manifest)
        if parameters is not None:
            shared = map_for_scoring(parameters, manifest.federated + manifest.frozen_parameters)
        elif snapshot is not None:
            shared = {**map_checked(snapshot, manifest.federated), **task.frozen}
        else:
            raise StoreError(
                "no version is whole on this device: it trains on single rows, or has not trained "
                "yet; give --parameters FILE, a version as `rivulet-export quantise` writes it"
            )
        return recommend(
            manifest,
            shared,
            {**task.initial_private, **store.private(task.id, manifest.private_parameters)},
            history,
            _situation(manifest, history, context),
            top,
            again=again,
            scorer=task.scorer,
        )
    finally:
        store.close()


def _situation(manifest: Manifest, history: History, context: Mapping[str, int]) -> IntArray:
    newest = history.context[-1] if len(history) else [UNKNOWN] * len(manifest.context)
    pairs = zip(manifest.context, newest, strict=True)
    return np.array([context.get(field.name, value) for field, value in pairs], np.int64)
