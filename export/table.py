"""What is in a bundle, as text for people."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from wire.bundle import Bundle
from wire.manifest import Capacity, ParameterSpec, Role

if TYPE_CHECKING:
    from export.verify import Verdict

__all__ = ["VERDICT_HEAD", "bundle_table", "verdict_line"]

VERDICT_HEAD = "engine        difference    us a step   peak memory   program"

_TRAVELS = {
    Role.DENSE: "as a whole",
    Role.ROWS: "touched rows only",
    Role.PRIVATE: "never",
    Role.FROZEN: "never: with the bundle",
    Role.FROZEN_ROWS: "never: with the bundle",
}


def bundle_table(bundle: Bundle) -> str:
    """Describe a bundle: several short tables, no line end at the end."""
    manifest = bundle.manifest
    head = [
        ("task", bundle.task),
        ("name", manifest.name),
        ("recommender", f"{manifest.recommender}, {manifest.batch} batches"),
        ("catalogue", f"{manifest.items:,} items"),
        ("context", ", ".join(f"{c.name} ({c.size:,})" for c in manifest.context) or "none"),
        ("history", f"{manifest.history:,} interactions" if manifest.history else "none"),
        ("optimizer", manifest.optimizer.value),
        ("runtimes", ", ".join(sorted(manifest.programs))),
        ("capacity", _capacity(manifest.capacity)),
        ("dense update", f"{manifest.dense_bytes:,} bytes"),
    ]
    files = [(f.path, f"{f.size_bytes:,}", f.sha256[:16]) for f in manifest.files]
    sections = [
        _columns(head),
        _columns([("parameter", "role", "shape", "travels"), *map(_row, manifest.parameters)]),
        _columns([("file", "bytes", "sha256"), *files]),
        _columns([("training", ""), *_pairs(manifest.training.to_dict().items())]),
        _columns([("codec", ""), *_pairs(manifest.codec.to_dict().items())]),
    ]
    return "\n\n".join(sections)


def verdict_line(verdict: "Verdict") -> str:
    """One engine's verdict as a line under `VERDICT_HEAD`."""
    if verdict.note:
        return f"{verdict.engine:<12}  {verdict.note}"
    memory = f"{verdict.peak_bytes / 1e6:8.0f} MB" if verdict.peak_bytes else ""
    size = f"{verdict.file_bytes:,} bytes" if verdict.file_bytes else ""
    return (
        f"{verdict.engine:<12}  {verdict.difference:10.1e}  {verdict.step_s * 1e6:11.1f}  "
        f"{memory:>12}   {size}"
    ).rstrip()


def _capacity(capacity: Capacity | None) -> str:
    if capacity is None:
        return "any"
    return f"{capacity.rows:,} rows, {capacity.batch:,} samples a step, where shapes are static"


def _row(spec: ParameterSpec) -> tuple[str, ...]:
    shape = " x ".join(f"{size:,}" for size in spec.shape)
    return spec.name, spec.role.value, shape, _TRAVELS[spec.role]


def _pairs(values: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(f"  {key}", str(value)) for key, value in values]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
