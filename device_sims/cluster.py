"""A Ray cluster: https://docs.ray.io."""

from typing import Any

from device_sims.processes import is_listening
from device_sims.scenario import ScenarioError

__all__ = ["connect"]

CONNECT_DEADLINE_S = 5.0


def connect(address: str) -> tuple[Any, int]:
    """Connect this process to a cluster; ``shutdown`` of what is returned ends that.

    Its machines need this package. Equal machines give equal bits; others may not.

    Args:
        address: as ``ray.init`` takes it: HOST:PORT, ``ray://HOST:PORT``, ``auto`` for the one that
            runs on this machine; ``local`` starts one here.

    Returns:
        The module ``ray``, and how many processors the cluster has, at least 1.

    Raises:
        ScenarioError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise ScenarioError(
            "Ray is not installed; install it with: pip install 'rivulet[ray]'"
        ) from None
    _look(address)
    try:
        ray.init(
            address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
        )
    except Exception as error:  # Ray raises errors of many unrelated types.
        raise ScenarioError(f"no Ray cluster at {address!r}: {error}") from None
    return ray, max(1, int(ray.cluster_resources().get("CPU", 1)))


def _look(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try it for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return
    if not is_listening(host.strip("[]"), int(port), timeout_s=CONNECT_DEADLINE_S):
        raise ScenarioError(
            f"no Ray cluster at {address!r}: nobody listens there; "
            "expected the address that `ray start --head` said"
        )
