"""Admission: every refusal by its name, and nothing good refused."""

import struct

import numpy as np
import pytest

from aggregator.admission import AdmissionPolicy, Admitted, admit
from aggregator.norms import Norms
from tests.aggregator.workshop import make_delta, make_update
from wire.bundle import Bundle
from wire.delta import Delta, RowBlock, add, squared_norm
from wire.messages import Refusal, Update

POLICY = AdmissionPolicy(max_staleness=3, max_norm=10.0)


def verdict(
    bundle: Bundle, update: Update, *, policy: AdmissionPolicy = POLICY, norms: Norms | None = None
) -> Delta | Refusal:
    specs = bundle.manifest.federated
    found = admit(update, specs=specs, version=5, policy=policy, norms=norms or Norms())
    return found.delta if isinstance(found, Admitted) else found


def of_norm(bundle: Bundle, norm: float) -> Update:
    delta = make_delta(bundle, 1)
    return make_update(bundle, 1, base=5, delta=add({}, delta, norm * squared_norm(delta) ** -0.5))


def with_payload(update: Update, payload: bytes) -> Update:
    return Update(
        task=update.task,
        sequence=update.sequence,
        base_version=update.base_version,
        examples=update.examples,
        payload=payload,
    )


def word(number: float) -> str:
    """A float32 as 32 bits; a payload has it at any bit."""
    return "".join(f"{octet:08b}" for octet in struct.pack(">f", number))


def test_a_good_update_gives_its_delta(bundle: Bundle) -> None:
    delta = verdict(bundle, make_update(bundle, 1, base=5))
    assert not isinstance(delta, Refusal)
    block = delta["item"]
    assert isinstance(block, RowBlock)
    sent = make_delta(bundle, 1)["item"]
    assert isinstance(sent, RowBlock)
    np.testing.assert_array_equal(block.values, sent.values)


@pytest.mark.parametrize(
    ("base", "expected"),
    [(1, Refusal.TOO_STALE), (2, None), (5, None), (6, Refusal.FROM_THE_FUTURE)],
)
def test_the_base_version_must_exist_and_be_recent(
    bundle: Bundle, base: int, expected: Refusal | None
) -> None:
    found = verdict(bundle, make_update(bundle, 1, base=base))
    assert (found if isinstance(found, Refusal) else None) is expected


@pytest.mark.parametrize("cut", [0, 1, 5, 40])
def test_a_truncated_delta_is_refused(bundle: Bundle, cut: int) -> None:
    update = make_update(bundle, 1, base=5)
    assert verdict(bundle, with_payload(update, update.payload[:cut])) is Refusal.WRONG_SHAPE


def test_trailing_bytes_are_refused(bundle: Bundle) -> None:
    update = make_update(bundle, 1, base=5)
    assert verdict(bundle, with_payload(update, update.payload + b"\0")) is Refusal.WRONG_SHAPE


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused(bundle: Bundle, bad: float) -> None:
    head = make_delta(bundle, 1)["head"]
    assert isinstance(head, np.ndarray)
    update = make_update(bundle, 1, base=5)
    bits = "".join(f"{octet:08b}" for octet in update.payload)
    assert bits.count(word(head[0])) == 1
    poisoned = int(bits.replace(word(head[0]), word(bad)), 2).to_bytes(len(update.payload), "big")
    assert verdict(bundle, with_payload(update, poisoned)) is Refusal.NOT_FINITE


def test_the_norm_is_bounded(bundle: Bundle) -> None:
    assert not isinstance(verdict(bundle, of_norm(bundle, 9.99)), Refusal)
    assert verdict(bundle, of_norm(bundle, 10.01)) is Refusal.NORM


def test_the_norm_is_bounded_by_what_is_usual_once_enough_is_known(bundle: Bundle) -> None:
    policy = AdmissionPolicy(norm_factor=3.0, norm_warmup=10, max_norm=100.0)
    few, enough = Norms({0: 9}), Norms({0: 10})
    # The bucket of norms from 1 to below 2^(1/8): what is usual is its upper end, 1.09.
    assert policy.norm_bound(few) == 100.0
    assert policy.norm_bound(enough) == pytest.approx(3.0 * 2 ** (1 / 8))
    large = of_norm(bundle, 3.3)
    assert not isinstance(verdict(bundle, large, policy=policy, norms=few), Refusal)
    assert verdict(bundle, large, policy=policy, norms=enough) is Refusal.NORM
    assert not isinstance(
        verdict(bundle, of_norm(bundle, 3.2), policy=policy, norms=enough), Refusal
    )


def test_the_bound_of_what_is_usual_can_be_switched_off_and_never_exceeds_the_other() -> None:
    norms = Norms({800: 100})
    assert AdmissionPolicy(max_norm=9.0).norm_bound(norms) == 9.0
    assert AdmissionPolicy(max_norm=9.0, norm_factor=0.0).norm_bound(Norms({0: 100})) == 9.0


def test_a_huge_number_is_refused_without_a_warning(bundle: Bundle) -> None:
    delta = make_delta(bundle, 1)
    delta["head"] = np.full(4, 3e38, np.float32)
    assert verdict(bundle, make_update(bundle, 1, base=5, delta=delta)) is Refusal.NORM


@pytest.mark.parametrize(
    "values",
    [
        {"max_staleness": -1},
        {"max_norm": 0.0},
        {"norm_factor": 0.5},
        {"norm_quantile": 0.0},
        {"norm_warmup": 0},
        {"norm_warmup": 1_001},
        {"rate_tolerance": 1.0},
        {"rate_burst": 0},
    ],
)
def test_a_policy_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"admission.{next(iter(values))}"):
        AdmissionPolicy(**values)  # type: ignore[arg-type]
