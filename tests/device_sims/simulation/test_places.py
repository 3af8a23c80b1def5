"""Places for devices: never too many, given to all in the end, and in rounds only together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sims.simulation.places import Places
from device_sims.simulation.virtual_time import VirtualTime

PATIENCE_S = 100.0


class Fleet:
    """Devices that train as soon as they may, each as long as it is told."""

    def __init__(self, places: int, *, rounds: bool = False, seed: int = 0) -> None:
        self.time = VirtualTime()
        self.places = Places(
            places=places,
            rounds=rounds,
            patience_s=PATIENCE_S,
            time=self.time,
            rng=np.random.default_rng(seed),
        )
        self.places.on_chosen = self.begin
        self.at_work = list[int]()
        self.begun = list[int]()

    def begin(self, number: int) -> None:
        if self.places.ask(number):
            self.at_work.append(number)
            self.begun.append(number)

    def finish(self, number: int, *, failed: bool = False) -> None:
        self.at_work.remove(number)
        self.places.done(number, failed=failed)


@settings(max_examples=60)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["ask", "done", "off"]))),
    st.booleans(),
)
def test_never_more_than_there_are_places(
    places: int, events: list[tuple[int, str]], rounds: bool
) -> None:
    fleet = Fleet(places, rounds=rounds)
    fleet.places.announced(0)
    for number, what in events:
        if what == "done" and number in fleet.at_work:
            fleet.finish(number)
        elif what == "off":
            fleet.places.offline(number)
        elif number not in fleet.at_work:
            fleet.begin(number)
        assert len(fleet.at_work) <= places
        assert len(set(fleet.at_work)) == len(fleet.at_work)
    if rounds:
        # Of one version nobody gets two places, and no more are given than there are.
        assert len(set(fleet.begun)) == len(fleet.begun) <= places


def test_without_rounds_a_place_goes_on_at_once_and_everybody_comes_to_be() -> None:
    fleet = Fleet(2)
    numbers = list(range(20))
    for number in numbers:
        fleet.begin(number)
    assert len(fleet.at_work) == 2
    while fleet.at_work:
        fleet.finish(fleet.at_work[0])
    assert sorted(fleet.begun) == sorted(numbers)
    assert fleet.begun != numbers


def test_in_rounds_a_place_that_is_free_waits_for_the_next_version() -> None:
    fleet = Fleet(3, rounds=True)
    for number in range(5):
        fleet.begin(number)
    # Those that ask before the first announcement know no version to begin with.
    first = set(fleet.at_work)
    assert len(first) == 3
    for number in list(first)[:2]:
        fleet.finish(number)
        fleet.begin(number)
    assert len(fleet.at_work) == 1
    fleet.places.announced(0)
    fleet.places.announced(0)
    straggler = next(iter(set(fleet.at_work) & first))
    assert len(fleet.at_work) == 4
    assert straggler in fleet.at_work


def test_a_place_that_was_given_and_not_taken_goes_to_another() -> None:
    fleet = Fleet(1)
    fleet.places.on_chosen = lambda _number: None
    fleet.begin(0)
    for number in (1, 2):
        assert not fleet.places.ask(number)
    fleet.finish(0)
    chosen = next(number for number in (1, 2) if number in fleet.places._chosen)
    fleet.places.offline(chosen)
    other = 1 if chosen == 2 else 2
    assert fleet.places.ask(other)


def test_in_rounds_who_fails_is_replaced_by_another() -> None:
    fleet = Fleet(2, rounds=True)
    fleet.places.announced(0)
    for number in range(5):
        fleet.begin(number)
    first, second = fleet.at_work
    fleet.finish(first, failed=True)
    assert len(fleet.at_work) == 2
    fleet.finish(second)
    assert len(fleet.at_work) == 1
    for _ in range(2):
        # A refusal that is delivered twice is one.
        fleet.places.refused(second)
        assert len(fleet.at_work) == 2
    assert len(set(fleet.begun)) == len(fleet.begun) == 4


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_who_fails_after_its_round_is_not_replaced_in_the_next_one(how: str) -> None:
    fleet = Fleet(2, rounds=True)
    fleet.places.announced(0)
    for number in range(6):
        fleet.begin(number)
    early, late = fleet.at_work
    fleet.finish(early)
    if how == "refused":
        fleet.finish(late)
    fleet.places.announced(1)
    begun = list(fleet.begun)
    if how == "refused":
        fleet.places.refused(late)
    else:
        fleet.finish(late, failed=True)
    assert fleet.begun == begun
    # One that the next round chose again has yet to send what that round waits for.
    fleet.places.announced(2)
    again = fleet.at_work[-1]
    begun = list(fleet.begun)
    fleet.places.refused(again)
    assert fleet.begun == begun


def test_a_round_is_over_whatever_an_earlier_one_left_behind() -> None:
    fleet = Fleet(2, rounds=True)
    fleet.places.announced(0)
    for number in range(6):
        fleet.begin(number)
    straggler = fleet.at_work[0]
    fleet.places.announced(1)
    for number in [number for number in fleet.at_work if number != straggler]:
        fleet.finish(number)
    assert fleet.at_work == [straggler]
    fleet.time.run_until(fleet.time() + PATIENCE_S + 1.0)
    assert len(fleet.at_work) > 1


def test_a_round_is_not_over_while_a_replacement_is_at_work() -> None:
    fleet = Fleet(1, rounds=True)
    fleet.places.announced(0)
    for number in range(3):
        fleet.begin(number)
    (first,) = fleet.at_work
    fleet.finish(first)
    fleet.places.refused(first)
    (second,) = fleet.at_work
    fleet.time.run_until(fleet.time() + 2.0 * PATIENCE_S)
    assert fleet.at_work == [second]
    fleet.finish(second)
    fleet.time.run_until(fleet.time() + PATIENCE_S + 1.0)
    assert len(fleet.at_work) == 1


@pytest.mark.parametrize("announced", [True, False])
def test_a_round_of_which_nothing_comes_is_followed_by_another(announced: bool) -> None:
    fleet = Fleet(2, rounds=True)
    fleet.places.announced(0)
    for number in (0, 1, 2, 3):
        fleet.begin(number)
    for number in list(fleet.at_work):
        fleet.finish(number)
    assert fleet.at_work == []
    if announced:
        fleet.places.announced(1)
        assert len(fleet.at_work) == 2
        for number in list(fleet.at_work):
            fleet.finish(number)
        fleet.at_work = []
    fleet.begin(4)
    begun = len(fleet.begun)
    fleet.time.run_until(fleet.time() + PATIENCE_S - 1.0)
    assert len(fleet.begun) == begun
    fleet.time.run_until(fleet.time() + 2.0)
    assert len(fleet.begun) > begun


def test_the_same_seed_chooses_the_same_devices() -> None:
    orders = []
    for seed in (0, 0, 1):
        fleet = Fleet(1, seed=seed)
        for n in range(30):
            fleet.begin(n)
        while fleet.at_work:
            fleet.finish(fleet.at_work[0])
        orders.append(fleet.begun)
    assert orders[0] == orders[1] != orders[2]
