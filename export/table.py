"""What is in a bundle, as text for people."""

from collections.abc import Iterable, Sequence

from wire.bundle import Bundle
from wire.manifest import ParameterSpec, Role

__all__ = ["bundle_table"]

_TRAVELS = {
    Role.DENSE: "as a whole",
    Role.ROWS: "touched rows only",
    Role.PRIVATE: "never",
}


def bundle_table(bundle: Bundle) -> str:
    """Describe a bundle: several short tables, no line end at the end."""
    manifest = bundle.manifest
    head = [
        ("task", bundle.task),
        ("name", manifest.name),
        ("recommender", f"{manifest.recommender}, {manifest.batch} batches"),
        ("catalogue", f"{manifest.items:,} items"),
        ("runtimes", ", ".join(sorted(manifest.programs))),
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
