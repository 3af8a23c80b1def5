"""MQTT topics. A device's id is also its user name, its client id and its certificate's CN."""

import re

from wire.errors import MessageError

__all__ = [
    "ALL_ANNOUNCEMENTS",
    "ALL_STATUSES",
    "ALL_UPDATES",
    "ROOT",
    "announcement",
    "check_device_id",
    "device_of",
    "receipts",
    "status",
    "subscription_qos",
    "task_of",
    "updates",
]

ROOT = "rivulet/v1"
ALL_UPDATES = f"{ROOT}/devices/+/updates"
ALL_STATUSES = f"{ROOT}/devices/+/status"
ALL_ANNOUNCEMENTS = f"{ROOT}/tasks/+/announcement"

_DEVICE = re.compile(r"[a-z0-9-]{1,64}")
_TASK = re.compile(r"[0-9a-f]{32}")


def check_device_id(device: str) -> str:
    """The device id itself.

    Raises:
        MessageError: it is not 1 to 64 of a-z, 0-9 and '-'.
    """
    if not _DEVICE.fullmatch(device):
        raise MessageError(f"device id is {device!r:.80}; expected 1 to 64 of a-z, 0-9 and '-'")
    return device


def updates(device: str) -> str:
    """Where a device publishes its updates (QoS 1)."""
    return f"{ROOT}/devices/{device}/updates"


def status(device: str) -> str:
    """Where a device's status is retained; its last will goes here too."""
    return f"{ROOT}/devices/{device}/status"


def receipts(device: str) -> str:
    """Where the aggregator answers a device (QoS 1)."""
    return f"{ROOT}/devices/{device}/receipts"


def announcement(task: str) -> str:
    """Where a task's newest version is retained."""
    return f"{ROOT}/tasks/{task}/announcement"


def subscription_qos(topic_filter: str) -> int:
    """The QoS to subscribe with: 0 for announcements, else 1.

    The newest announcement is retained and replaces those before it. With QoS 1 the broker would
    queue every one of them for a device that is away.
    """
    return 0 if topic_filter.startswith(f"{ROOT}/tasks/") else 1


def device_of(topic: str) -> str:
    """The device of an update, status or receipt topic.

    Raises:
        MessageError: the topic is not one of those.
    """
    parts = topic.split("/")
    if len(parts) != 5 or not topic.startswith(f"{ROOT}/devices/"):
        raise MessageError(f"{topic!r:.120} is not a device's topic")
    return check_device_id(parts[3])


def task_of(topic: str) -> str:
    """The task of an announcement topic.

    Raises:
        MessageError: the topic is not an announcement's.
    """
    parts = topic.split("/")
    if len(parts) != 5 or parts[2] != "tasks" or not _TASK.fullmatch(parts[3]):
        raise MessageError(f"{topic!r:.120} is not an announcement's topic")
    return parts[3]
