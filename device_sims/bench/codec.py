"""The delta codec: bytes against their lower bounds and against other codecs, and its time.

Sizes are `len(payload)` of encoded deltas; where the envelope counts, the figure says so. Prints
each figure beside its goal and what it is compared with, and writes `runs/bench/codec.json`.
"""

import argparse
import json
import math
import statistics
import tempfile
import timeit
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from device_sims.bench.deltas import Learned, Pass, Trainer
from device_sims.bench.figures import Figure, publish
from device_sims.bench.other_codecs import as_blosc, as_json, as_top_k, as_zstd, range_coded
from device_sims.datasets import Interactions, load_movielens, synthesise
from device_sims.protocol import Quality, best_round
from wire.codec import decode_delta, encode_delta
from wire.codec.choice import form_for
from wire.codec.index_set import write_index_set
from wire.codec.stream import Writer
from wire.delta import Delta, FloatArray, RowBlock, add, squared_norm
from wire.manifest import ParameterSpec, Role
from wire.messages import Metric, Update
from wire.policy import CodecMode, CodecPolicy

DATA = Path(__file__).parents[3] / "shared" / "data" / "ml-100k" / "ratings.dat"
DRAWS = 50
CATALOGUE, WIDTH, ROWS = 3_706, 32, 100
LARGE_CATALOGUE, LARGE_WIDTH, LARGE_ROWS, LARGE_NMSE = 100_000, 64, 300, 0.33
TIMED_PASS = 5
TOUCHED = range(400, 601)
"""How many rows an update touches of which the time is measured: about 500."""
TIMED, REPEATS, COMPARED = 30, 7, 500


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="MovieLens-100K, any format")
    parser.add_argument("--seeds", type=int, default=3, help="runs of which quality is measured")
    parser.add_argument("--passes", type=int, default=40, help="updates of each device in a run")
    arguments = parser.parse_args()
    # An update's matrices are tiny; threads for their algebra only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        figures = [
            *(_index(rate) for rate in (0.01, 0.05, 0.10, 0.25)),
            *(_message(bits, rate) for rate in (0.032, 0.10) for bits in (1, 2)),
            _large_table(),
            *(_volume(bits, goal) for bits, goal in ((8, 0.04), (1, 0.018))),
            *_updates(arguments.data, arguments.seeds, arguments.passes),
        ]
    publish("codec", figures)


def _index(rate: float) -> Figure:
    """Touched rows and a mask inside them."""
    rng, size = np.random.default_rng(0), ROWS * WIDTH
    count = round(rate * size)
    sizes = []
    for _ in range(DRAWS):
        writer = Writer()
        write_index_set(writer, _chosen(rng, ROWS, CATALOGUE), CATALOGUE)
        write_index_set(writer, _chosen(rng, count, size), size)
        sizes.append(len(writer.getvalue()))
    entropy = (_entropy(ROWS, CATALOGUE) + _entropy(count, size)) / 8
    return Figure(
        figure=f"index bytes / entropy, {rate:.0%} of {ROWS} rows",
        value=statistics.mean(sizes) / entropy,
        unit="",
        goal=1.03,
        at_least=False,
        compared_with=f"{statistics.mean(sizes):,.1f} bytes, entropy {entropy:,.1f}; without row "
        f"structure at least {_entropy(count, CATALOGUE * WIDTH) / 8:,.0f}; int32 {4 * count:,}",
    )


def _message(bits: int, rate: float) -> Figure:
    """A whole payload against the entropy of its indices and the bits of its values."""
    rng, specs = np.random.default_rng(0), _specs(CATALOGUE, WIDTH)
    policy = CodecPolicy(mode=CodecMode.TOP_K, bits=bits, density=rate)
    sizes, coded, bound, kept = [], [], 0.0, 0
    for _ in range(DRAWS):
        block = RowBlock(_chosen(rng, ROWS, CATALOGUE), _normal(rng, ROWS, WIDTH))
        sizes.append(len(encode_delta({"item": block}, specs, policy)))
        coded.append(_range_coded(block, policy, CATALOGUE))
        kept = math.ceil(rate * block.values.size)
        bound = (_entropy(ROWS, CATALOGUE) + _entropy(kept, block.values.size) + bits * kept) / 8
    return Figure(
        figure=f"message / bound, {bits} bit, {kept} non-zeros",
        value=statistics.mean(sizes) / bound,
        unit="",
        goal=1.05,
        at_least=False,
        compared_with=f"{statistics.mean(sizes):,.1f} bytes, bound {bound:,.1f}; range coder "
        f"{_mean(coded)}; int32 and float32 {8 * kept:,}",
    )


def _large_table() -> Figure:
    """Rows of white noise: what no code can find structure in."""
    rng, specs = np.random.default_rng(0), _specs(LARGE_CATALOGUE, LARGE_WIDTH)
    policy = CodecPolicy(mode=CodecMode.AUTO, nmse=LARGE_NMSE)
    white = RowBlock(
        _chosen(rng, LARGE_ROWS, LARGE_CATALOGUE), _normal(rng, LARGE_ROWS, LARGE_WIDTH)
    )
    lengths = rng.lognormal(size=(LARGE_ROWS, 1)).astype(np.float32)
    uneven = RowBlock(white.rows, white.values * lengths)
    payload = encode_delta({"item": white}, specs, policy)
    nmse = _nmse({"item": white}, payload, specs)
    other = len(encode_delta({"item": uneven}, specs, policy))
    sparse = as_top_k(white, LARGE_NMSE)
    return Figure(
        figure=f"{LARGE_CATALOGUE:,} x {LARGE_WIDTH}, {LARGE_ROWS} rows, NMSE {nmse:.3f}",
        value=len(payload),
        unit="bytes",
        goal=3_000,
        at_least=False,
        compared_with=f"rows of uneven length {other:,}; range coder "
        f"{_mean([_range_coded(white, policy, LARGE_CATALOGUE)])}; same error with int32 and "
        f"float32 {len(sparse):,}, with zstd {_mean([_length(as_zstd(sparse))])}; dense float32 "
        f"{4 * LARGE_CATALOGUE * LARGE_WIDTH:,}",
    )


def _volume(bits: int, goal: float) -> Figure:
    """The largest tenth of a table of which every row is touched."""
    rng, specs = np.random.default_rng(0), _specs(CATALOGUE, WIDTH)
    policy = CodecPolicy(mode=CodecMode.TOP_K, bits=bits, density=0.1)
    block = RowBlock(np.arange(CATALOGUE), _normal(rng, CATALOGUE, WIDTH))
    coded = _range_coded(block, policy, CATALOGUE)
    share = "" if coded is None else f"; range coder {coded / block.values.nbytes:.2%}"
    return Figure(
        figure=f"volume of the top 10 % at {bits} bit against float32",
        value=100 * len(encode_delta({"item": block}, specs, policy)) / block.values.nbytes,
        unit="%",
        goal=100 * goal,
        at_least=False,
        compared_with=f"int32 and float32 20 %; DeepReduce 6.2 %{share}",
    )


def _updates(data: Path, seeds: int, passes: int) -> Iterator[Figure]:
    """Size, time and quality of real devices' updates, or of made-up ones without the data."""
    there = data.is_file()
    interactions = load_movielens(data) if there else synthesise(users=200)
    name, policy = "MovieLens" if there else "synthetic", CodecPolicy()
    trainer, coded = _train(interactions, policy, passes, seed=0)
    specs = trainer.specs
    learned = coded[min(TIMED_PASS, passes) - 1].learned
    usual = [one for one in learned if len(_rows(one.delta).rows) in TOUCHED][:TIMED]
    sizes = [size for done in coded for size in done.sizes]
    yield _update_size(name, specs, sizes, learned, policy)
    yield from _times(name, specs, usual or learned[:TIMED], policy)
    yield _bytes_down(name, specs, coded)
    yield _int8_loss(coded[-1].test, trainer.examine_int8())
    if seeds < 1:
        return
    raw = CodecPolicy(mode=CodecMode.RAW)
    ours, theirs = [_best(coded)], list[Quality]()
    for seed in range(seeds):
        if seed:
            ours.append(_best(_train(interactions, policy, passes, seed=seed)[1]))
        theirs.append(_best(_train(interactions, raw, passes, seed=seed)[1]))
    for metric in ("hr_at_10", "ndcg_at_10"):
        yield _loss(
            metric, [getattr(q, metric) for q in ours], [getattr(q, metric) for q in theirs]
        )


def _train(
    interactions: Interactions, policy: CodecPolicy, passes: int, *, seed: int
) -> tuple[Trainer, list[Pass]]:
    with tempfile.TemporaryDirectory() as folder:
        rounded = policy.mode is not CodecMode.RAW
        trainer = Trainer(interactions, policy, Path(folder) / "bundle", rounded=rounded, seed=seed)
        steps = tqdm(range(passes), desc=f"{policy.mode}, seed {seed}", unit="pass")
        kept = min(TIMED_PASS, passes) - 1
        return trainer, [trainer.train(keep=step == kept) for step in steps]


def _best(passes: Sequence[Pass]) -> Quality:
    return passes[best_round([done.validation for done in passes])].test


def _loss(metric: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """What the codec costs in quality, against how far runs without it are apart."""
    spread = max(theirs) - min(theirs)
    return Figure(
        figure=f"{metric} lost against raw updates, mean of {len(ours)} seeds",
        value=statistics.mean(theirs) - statistics.mean(ours),
        unit="",
        goal=spread,
        at_least=False,
        compared_with=f"coded {_listed(ours)}; raw {_listed(theirs)}; goal: the spread of raw",
    )


def _bytes_down(name: str, specs: Sequence[ParameterSpec], passes: Sequence[Pass]) -> Figure:
    """A device that takes part once in ten versions, with the list of patches that it reads."""
    asked = len(_offers(10_000, 40_000))
    taken = [asked + min(sizes) for done in passes for sizes in done.down]
    first = [asked + min(sizes) for sizes in passes[0].down]
    whole = [sizes[1] for done in passes for sizes in done.down]
    dense = 4 * sum(spec.size for spec in specs)
    return Figure(
        figure=f"bytes down to a {name} device, once in ten versions, against float32",
        value=100 * statistics.mean(taken) / dense,
        unit="%",
        goal=5,
        at_least=False,
        compared_with=f"{statistics.mean(taken):,.0f} bytes, in the first pass "
        f"{statistics.mean(first):,.0f}; a version from nothing {statistics.mean(whole):,.0f}; "
        f"float32 {dense:,}",
    )


def _offers(*sizes: int) -> bytes:
    """A list of patches as the aggregator's API writes it."""
    offers = [{"base": 1_800, "sha256": "0" * 64, "size_bytes": size} for size in sizes]
    return json.dumps(offers, separators=(",", ":")).encode()


def _int8_loss(exact: Quality, int8: Quality) -> Figure:
    return Figure(
        figure="ndcg_at_10 lost by scoring with int8 tables",
        value=exact.ndcg_at_10 - int8.ndcg_at_10,
        unit="",
        goal=0.001,
        at_least=False,
        compared_with=f"float32 {exact.ndcg_at_10:.4f}, int8 {int8.ndcg_at_10:.4f}; full rank "
        f"{exact.full_ndcg_at_10:.4f}, {int8.full_ndcg_at_10:.4f}",
    )


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _update_size(
    name: str,
    specs: Sequence[ParameterSpec],
    sizes: Sequence[int],
    learned: Sequence[Learned],
    policy: CodecPolicy,
) -> Figure:
    (spec,) = specs
    some = learned[:: max(1, len(learned) // COMPARED)]
    blocks = [_rows(one.delta) for one in some]
    lost = [_nmse(one.delta, one.payload, specs) for one in some]
    sparse = [as_top_k(block, nmse) for block, nmse in zip(blocks, lost, strict=True)]
    coded = [_range_coded(block, policy, spec.shape[0]) for block in blocks]
    return Figure(
        figure=f"mean update of a {name} device, with envelope",
        value=statistics.mean(len(_enveloped(bytes(size))) for size in sizes),
        unit="bytes",
        goal=700,
        at_least=False,
        compared_with=f"{len(some):,} of one pass: NMSE {statistics.mean(lost):.3f}; payload "
        f"{statistics.mean(len(one.payload) for one in some):,.0f}; range coder {_mean(coded)}; "
        f"same error with int32 and float32 {_mean([len(raw) for raw in sparse])}, with zstd "
        f"{_mean([_length(as_zstd(raw)) for raw in sparse])}; touched rows as float32 "
        f"{_mean([block.values.nbytes for block in blocks])}, with Blosc2 "
        f"{_mean([_length(as_blosc(block)) for block in blocks])}, as JSON "
        f"{_mean([len(as_json(block)) for block in blocks])}; dense float32 {4 * spec.size:,}",
    )


def _times(
    name: str, specs: Sequence[ParameterSpec], learned: Sequence[Learned], policy: CodecPolicy
) -> Iterator[Figure]:
    blocks = [_rows(one.delta) for one in learned]
    rows = statistics.mean(len(block.rows) for block in blocks)
    encode = [_ms(encode_delta, one.delta, specs, policy) for one in learned]
    decode = [_ms(decode_delta, one.payload, specs) for one in learned]
    json_ms = [_ms(as_json, block) for block in blocks]
    zstd_ms = [_ms(as_zstd, block.values.tobytes()) for block in blocks]
    for what, found, goal in (("encode", encode, 1.5), ("decode", decode, 0.4)):
        yield Figure(
            figure=f"{what} a {name} update of {rows:,.0f} rows",
            value=statistics.median(found),
            unit="ms",
            goal=goal,
            at_least=False,
            compared_with=f"slowest {max(found):.2f}; writing it as JSON "
            f"{statistics.median(json_ms):.2f}, zstd of float32 {statistics.median(zstd_ms):.2f}",
        )


def _range_coded(block: RowBlock, policy: CodecPolicy, catalogue: int) -> int | None:
    """Bytes of the same quantised block by a range coder."""
    form = form_for(
        block.values, policy, table=True, universe=catalogue, rng=np.random.default_rng(0)
    )
    named = np.zeros(catalogue, np.bool_)
    named[block.rows] = True
    return _length(range_coded(form, named))


def _enveloped(payload: bytes) -> bytes:
    """An update as it is sent, with numbers as large as those of a fleet that is at work."""
    update = Update(
        task="0" * 32,
        sequence=1_763_000_000,
        base_version=1_800,
        examples=106,
        payload=payload,
        metrics=dict.fromkeys(Metric, 0.25),
    )
    return update.encode()


def _nmse(delta: Delta, payload: bytes, specs: Sequence[ParameterSpec]) -> float:
    lost = squared_norm(add(delta, decode_delta(payload, specs), -1.0))
    return lost / squared_norm(delta)


def _specs(catalogue: int, width: int) -> tuple[ParameterSpec, ...]:
    return (ParameterSpec("item", Role.ROWS, (catalogue, width)),)


def _rows(delta: Delta) -> RowBlock:
    (tensor,) = delta.values()
    if not isinstance(tensor, RowBlock):
        raise ValueError("expected a delta of one table")
    return tensor


def _chosen(rng: np.random.Generator, count: int, universe: int) -> NDArray[np.int64]:
    return np.sort(rng.choice(universe, count, replace=False)).astype(np.int64)


def _normal(rng: np.random.Generator, rows: int, width: int) -> FloatArray:
    return rng.normal(size=(rows, width)).astype(np.float32)


def _entropy(count: int, universe: int) -> float:
    """Bits of a random set."""
    share = count / universe
    return -universe * (share * math.log2(share) + (1 - share) * math.log2(1 - share))


def _ms(work: Callable[..., object], *arguments: object) -> float:
    return 1e3 * min(timeit.repeat(lambda: work(*arguments), number=1, repeat=REPEATS))


def _length(raw: bytes | None) -> int | None:
    return None if raw is None else len(raw)


def _mean(sizes: Sequence[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return f"{statistics.mean(known):,.0f}" if known else "not installed"


if __name__ == "__main__":
    main()
