"""What a version is made of, when the counter is not the whole story."""

import pytest

from aggregator.ledger import Exclusion, Origin, OriginKind, Stretch, ancestry_of, up_to

D, E = Exclusion(devices=("d",)), Exclusion(devices=("e",))
NOBODY: frozenset[Exclusion] = frozenset()


def back(to: int) -> Origin:
    return Origin(kind=OriginKind.ROLLBACK, of=to, before="00")


def again(of: int, without: Exclusion) -> Origin:
    return Origin(kind=OriginKind.PROMOTE, of=of, before="00", without=without, lineage=1)


def test_without_origins_it_is_all_that_came_before() -> None:
    assert ancestry_of({}, 7) == (Stretch(0, 7),)
    assert ancestry_of({}, 0, [D]) == (Stretch(0, 0, frozenset([D])),)


def test_a_rollback_jumps_over_what_was_gone_back_on() -> None:
    origins = {5: back(2), 8: back(6), 9: back(3)}
    assert ancestry_of(origins, 4) == (Stretch(0, 4),)
    assert ancestry_of(origins, 5) == (Stretch(0, 2), Stretch(5, 5))
    assert ancestry_of(origins, 8) == (Stretch(0, 2), Stretch(5, 6), Stretch(8, 8))
    # Version 3 is of before the first rollback.
    assert ancestry_of(origins, 10) == (Stretch(0, 3), Stretch(9, 10))


def test_a_promotion_leaves_updates_out_of_all_before_it_and_of_nothing_after_it() -> None:
    origins = {5: again(4, D), 7: back(6), 9: again(8, E)}
    # A waiting update that is left out is taken by the version itself: it belongs to the past.
    assert ancestry_of(origins, 5) == (Stretch(0, 5, frozenset([D])),)
    assert ancestry_of(origins, 10) == (
        Stretch(0, 5, frozenset([D, E])),
        Stretch(6, 6, frozenset([E])),
        Stretch(7, 9, frozenset([E])),
        Stretch(10, 10, NOBODY),
    )


def test_a_part_of_it_is_what_had_come_about_by_then() -> None:
    ancestry = ancestry_of({5: back(2)}, 9)
    assert up_to(ancestry, 9) == ancestry
    assert up_to(ancestry, 5) == ancestry_of({5: back(2)}, 5)
    assert up_to(ancestry, 1) == (Stretch(0, 1),)


def test_an_exclusion_covers_what_fits_all_that_it_says() -> None:
    both = Exclusion(devices=("e", "d", "d"), since=10.0, until=20.0)
    assert both.devices == ("d", "e")
    found = [(device, at) for device in "cde" for at in (9.0, 10.0, 19.0, 20.0)]
    assert [f for f in found if both.covers(*f)] == [
        *(("d", 10.0), ("d", 19.0)),
        *(("e", 10.0), ("e", 19.0)),
    ]
    assert Exclusion(since=10.0).covers("anybody", 10.0)
    assert Exclusion.from_dict(both.to_dict()) == both
    origin = again(4, both)
    assert Origin.from_dict(origin.to_dict()) == origin


def test_an_exclusion_leaves_out_something_and_not_everything() -> None:
    with pytest.raises(ValueError, match="name a device or a time"):
        Exclusion()
    with pytest.raises(ValueError, match="since must be before until"):
        Exclusion(since=2.0, until=2.0)
