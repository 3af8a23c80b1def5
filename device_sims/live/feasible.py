"""Which parts of a scenario cannot be done for real."""

from dataclasses import fields

from device_sims.scenario import Scenario, ScenarioError, Service

__all__ = ["check_feasible", "left_out"]


def check_feasible(scenario: Scenario) -> None:
    """Refuse a scenario that would be another one without what cannot be done for real.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    if scenario.attackers.share:
        raise ScenarioError(
            f"attackers.share is {scenario.attackers.share:g}; expected 0: real agents do not "
            "forge what they send, only `rivulet-fleet simulate` has attackers"
        )
    selection = scenario.selection
    for field in fields(selection):
        given = getattr(selection, field.name)
        if given != field.default:
            raise ScenarioError(
                f"selection.{field.name} is {given}; expected {field.default}: real devices train "
                "when the task's interval has passed, from the newest version"
            )


def left_out(scenario: Scenario, *, own_broker: bool, own_aggregator: bool) -> list[str]:
    """What the scenario asks for and a real run does not do, a sentence each.

    Args:
        scenario: what is to happen.
        own_broker: whether the broker is one that this run can restart.
        own_aggregator: whether the aggregator is one that this run can kill.
    """
    faults = scenario.faults
    said = []
    if faults.aggregator_full:
        said.append(
            f"faults.aggregator_full = {faults.aggregator_full:g}: only `rivulet-fleet simulate` "
            "can do that"
        )
    if faults.broker_restarts_h and not own_broker:
        said.append(
            f"faults.broker_restarts_h = {faults.broker_restarts_h:g}: only a Mosquitto that this "
            "run starts can be restarted"
        )
    if faults.aggregator_crash and not own_aggregator:
        said.append(
            f"faults.aggregator_crash = {faults.aggregator_crash:g}: the aggregator is not ours to "
            "kill"
        )
    if scenario.service.together_s != Service().together_s:
        said.append(
            f"service.together_s = {scenario.service.together_s:g}: the aggregator takes in as one "
            "batch what it finds waiting"
        )
    if not own_aggregator:
        said.append(
            "[aggregation], [admission], [service]: the aggregator keeps the settings that it has"
        )
    return said
