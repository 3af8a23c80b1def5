"""The table [run]: how long, and what is looked at."""

from dataclasses import dataclass

from device_sims.scenario.table import Checks, read_table

__all__ = ["Run", "read_run"]

LEAST_STEP_H = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long, and what is looked at.

    Attributes:
        hours: virtual time in which devices train; what waits then is delivered without faults.
        evaluate_every_h: virtual hours from one evaluation to the next, at least 0.001; 0 for the
            end only.
        evaluate_users: quality is that of so many users, drawn at random; 0 for all.
        seed: of everything that is drawn.
        checks: look at every message and at every update of a device whether private parameters
            are in it, and whether what was learned is all there. It takes time; a fleet of 100,000
            can do without.
        holdout: a device keeps its latest interaction out of its training and ranks it before each
            update, as the service's agents do; without, it trains on all of them and says nothing
            about quality. Quality here is measured on other interactions in any case.
    """

    hours: float = 2.0
    evaluate_every_h: float = 0.5
    evaluate_users: int = 0
    seed: int = 0
    checks: bool = True
    holdout: bool = True


def read_run(given: object) -> Run:
    """Read the table.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    run = read_table(Run, given, "run")
    checks = Checks(run, "run")
    checks.above_zero("hours", 1e6)
    checks.number("evaluate_every_h", 0.0, 1e6)
    if 0.0 < run.evaluate_every_h < LEAST_STEP_H:
        expected = f"0, or at least {LEAST_STEP_H:g}"
        raise checks.refusal("evaluate_every_h", run.evaluate_every_h, expected)
    checks.integer("evaluate_users", 0, 10_000_000)
    checks.integer("seed", 0, 2**63 - 1)
    return run
