"""The table [fleet]: what devices are like, and when they are there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from device_sims.scenario.errors import ScenarioError
from device_sims.scenario.table import MAX_S, Checks, read_table
from wire.checks import Fields

__all__ = ["DeviceClass", "FleetBehaviour", "Traits", "read_fleet"]

DAY_H = 24.0
MOST_CLASSES = 100
MAX_VERSION = 40
"""Characters of an agent's version that a ``Status`` has room for."""
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What devices of one kind are like.

    A device that has a connection may use it in its plugged-in hours and outside its metered ones;
    there it comes and goes as ``online_s`` and ``offline_s`` say. Hours are those of its own day,
    from one to the other, over midnight where the first is the later one.

    Attributes:
        update_s: median seconds that a local update takes, above 0.
        update_sigma: standard deviation of that time's logarithm over devices, 0 to 5.
        online_s: mean length of a stretch in which a device has a connection; exponential.
        offline_s: mean length of the stretch between two of them; 0 for always online.
        plugged_hours: [from, to], 0 to 24: it takes part only then. [0, 24] is the whole day.
        metered_hours: [from, to]: its connection costs money then, so it takes no part. [] is
            never.
        hours_sigma: standard deviation, over devices, of how many hours later or earlier than that
            its plugged-in and metered hours are, 0 to 12.
        latency_s: mean one-way delay of a message; exponential.
        up_bytes_s: bytes a second to the broker, above 0.
        down_bytes_s: bytes a second from the aggregator, above 0.
        train_w: watts that training takes on top of an idle device.
        up_j_mb: joules that it takes to send a million bytes.
        down_j_mb: joules that it takes to receive a million bytes.
    """

    update_s: float = 5.0
    update_sigma: float = 0.8
    online_s: float = 3_600.0
    offline_s: float = 600.0
    plugged_hours: tuple[float, ...] = (0.0, DAY_H)
    metered_hours: tuple[float, ...] = ()
    hours_sigma: float = 0.0
    latency_s: float = 0.1
    up_bytes_s: float = 1e5
    down_bytes_s: float = 1e6
    train_w: float = 2.0
    up_j_mb: float = 2.27
    down_j_mb: float = 1.10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass(Traits):
    """Some of the devices: a table of [[fleet.classes]]. What it leaves out, [fleet] says.

    Attributes:
        name: what reports call it.
        share: how many devices are of this class, relative to the other classes' shares.
    """

    name: str
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetBehaviour(Traits):
    """All devices. Each draws its own values once, from its own generator.

    Attributes:
        classes: kinds of devices; none: all are as this table says.
        clock_skew_s: a device's clock is off by up to so much, either way.
        start_hour: hour of the day, in UTC, at which the run begins.
        time_zones: hours ahead of UTC, -12 to 14; each device is in one of them.
        new_share: share of the devices that are not there at the start, 0 to 1.
        new_within_h: they come within so many hours, evenly spread; 0 for the whole run.
        stay_h: mean hours that a device stays before it goes for good; exponential. 0 for ever.
        trace: file that says when devices are connected, and perhaps how fast they are then; see
            ``device_sims.nature.trace``. Empty for none.
        trace_repeats_h: the trace begins again after so many hours; 0 for never.
        agent_versions: the version that an agent tells the aggregator, and the share of the devices
            that do, adding up to 1. It is a name: what runs is the same. Empty for the version of
            this code, which a simulated agent then does not tell at all.
    """

    classes: tuple[DeviceClass, ...] = ()
    clock_skew_s: float = 0.0
    start_hour: float = 0.0
    time_zones: tuple[float, ...] = (0.0,)
    new_share: float = 0.0
    new_within_h: float = 0.0
    stay_h: float = 0.0
    trace: Path = Path()
    trace_repeats_h: float = 0.0
    agent_versions: Mapping[str, float] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[DeviceClass, ...]:
        """The classes, or the one that this table stands for."""
        return self.classes or (DeviceClass(name="device", **_traits(self)),)

    @property
    def is_traced(self) -> bool:
        """Whether a trace says when devices are connected."""
        return self.trace != Path()


def read_fleet(given: object) -> FleetBehaviour:
    """Read the table.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    raw = dict(given) if isinstance(given, Mapping) else given
    listed = raw.pop("classes", []) if isinstance(raw, dict) else []
    fleet = read_table(FleetBehaviour, raw, "fleet")
    if not isinstance(listed, list) or len(listed) > MOST_CLASSES:
        raise ScenarioError(
            f"fleet.classes is {listed!r:.80}; expected tables [[fleet.classes]], "
            f"at most {MOST_CLASSES}"
        )
    start = _traits(fleet)
    classes = tuple(
        read_table(DeviceClass, one, f"fleet.classes[{at}]", start=start)
        for at, one in enumerate(listed)
    )
    _check_fleet(fleet)
    for at, one in enumerate(classes):
        checks = Checks(one, f"fleet.classes[{at}]")
        checks.text("name", 40)
        checks.above_zero("share", 1e6)
        _check_traits(one, f"fleet.classes[{at}]")
    names = [one.name for one in classes]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise ScenarioError(f"fleet.classes names {doubled!r} twice; expected different names")
    return replace(fleet, classes=classes)


def _traits(fleet: Traits) -> dict[str, Any]:
    return {entry.name: getattr(fleet, entry.name) for entry in fields(Traits)}


def _check_fleet(fleet: FleetBehaviour) -> None:
    _check_traits(fleet, "fleet")
    checks = Checks(fleet, "fleet")
    checks.numbers(("clock_skew_s",), 0.0, MAX_S)
    checks.number("start_hour", 0.0, DAY_H)
    checks.number("new_share", 0.0, 1.0)
    checks.numbers(("new_within_h", "stay_h", "trace_repeats_h"), 0.0, 1e6)
    zones = fleet.time_zones
    if not zones or not all(_is_number(zone) and -12 <= zone <= 14 for zone in zones):
        raise checks.refusal("time_zones", list(zones), "a list of hours from -12 to 14")
    if fleet.trace_repeats_h and not fleet.is_traced:
        raise checks.refusal("trace_repeats_h", fleet.trace_repeats_h, "0 where no trace is named")
    _check_versions(fleet.agent_versions, checks)


def _check_versions(shares: Mapping[str, float], checks: Checks) -> None:
    each = Fields(shares, where="fleet.agent_versions", error=ScenarioError)
    for version in shares:
        if not 0 < len(version) <= MAX_VERSION or not version.isprintable():
            expected = f"versions of 1 to {MAX_VERSION} printable characters"
            raise checks.refusal("agent_versions", version, expected)
        each.number(version, 0.0, 1.0)
    if shares and abs(sum(shares.values()) - 1.0) > TOLERANCE:
        expected = f"shares that add up to 1, not {sum(shares.values()):g}"
        raise checks.refusal("agent_versions", shares, expected)


def _check_traits(traits: Traits, where: str) -> None:
    checks = Checks(traits, where)
    for name in ("update_s", "online_s", "up_bytes_s", "down_bytes_s"):
        checks.above_zero(name, MAX_S)
    checks.number("update_sigma", 0.0, 5.0)
    checks.number("hours_sigma", 0.0, 12.0)
    checks.numbers(("offline_s", "latency_s"), 0.0, MAX_S)
    checks.numbers(("train_w", "up_j_mb", "down_j_mb"), 0.0, 1e6)
    _check_hours(checks, "plugged_hours", traits.plugged_hours, may_be_empty=False)
    _check_hours(checks, "metered_hours", traits.metered_hours, may_be_empty=True)
    if traits.metered_hours and _all_metered(traits):
        value = list(traits.metered_hours)
        raise checks.refusal("metered_hours", value, "to leave some of plugged_hours")


def _check_hours(
    checks: Checks, name: str, hours: tuple[float, ...], *, may_be_empty: bool
) -> None:
    if may_be_empty and not hours:
        return
    good = len(hours) == 2 and all(_is_number(h) and 0.0 <= h <= DAY_H for h in hours)
    if not good or hours in ((DAY_H, 0.0), (hours[0], hours[0])):
        raise checks.refusal(name, list(hours), "[from, to], two different hours from 0 to 24")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all_metered(traits: Traits) -> bool:
    """Whether no plugged-in moment of a day is free of the meter."""
    plugged, metered = traits.plugged_hours, traits.metered_hours
    # Where one begins or the other ends, a free stretch would begin.
    moments = (plugged[0] % DAY_H, metered[1] % DAY_H)
    return not any(_inside(plugged, at) and not _inside(metered, at) for at in moments)


def _inside(hours: tuple[float, ...], at: float) -> bool:
    start, end = hours
    return start <= at < end if start < end else at >= start or at < end
