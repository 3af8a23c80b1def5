"""What moves many agents of a process: one reactor on a thread of its own, and one worker."""

import resource
import threading
import time
from collections.abc import Collection

from edge_agent.participant import Participant
from edge_agent.reactor import Reactor
from edge_agent.workers import Workers

__all__ = ["DescriptorsError", "Drive", "allow_descriptors"]

# A second thread makes the fleet slower: the two hand Python's lock to each other at each statement
# of SQLite's.
WORKERS = 1
STOP_DEADLINE_S = 30.0
# A socket, and the database with its log and its index.
DESCRIPTORS_A_DEVICE = 4
SPARE_DESCRIPTORS = 200


class DescriptorsError(Exception):
    """The system allows fewer open files than the agents need; the text has both numbers."""


class Drive:
    """Runs from construction until ``stop``.

    Attributes:
        reactor: for connections and timers.
        workers: one thread for the agents' work.
    """

    def __init__(self) -> None:
        self.reactor, self.workers = Reactor(), Workers(WORKERS, "agent")
        self._thread = threading.Thread(target=self.reactor.run, name="reactor", daemon=True)
        self._thread.start()

    def stop(self, participants: Collection[Participant]) -> None:
        """Let agents finish the work in hand, say goodbye and close their databases; then end."""
        left = threading.Semaphore(0)
        for participant in participants:
            participant.stop(left.release)
        deadline = time.monotonic() + STOP_DEADLINE_S
        for _ in participants:
            left.acquire(timeout=max(0.0, deadline - time.monotonic()))
        self.workers.stop(STOP_DEADLINE_S)
        self.reactor.stop()
        self._thread.join()
        self.reactor.close()


def allow_descriptors(devices: int) -> None:
    """Raise this process's limit of open files to what so many agents need.

    Raises:
        DescriptorsError: the system does not allow that.
    """
    needed = devices * DESCRIPTORS_A_DEVICE + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise DescriptorsError(
            f"{devices:,} agents in one process need {needed:,} open files; the limit here is "
            f"{hard:,}: take more processes or fewer devices, or raise it (`ulimit -Hn`)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
