"""What can go wrong on a device; each error says whether trying again later can help."""

__all__ = [
    "AgentError",
    "ConfigError",
    "DownloadError",
    "InteractionError",
    "PermanentDownloadError",
    "ProgramError",
    "RefusedConnectionError",
    "RuntimeUnavailableError",
    "StoreError",
    "TrainingError",
    "TransientDownloadError",
]


class AgentError(Exception):
    """Base of every error that the agent expects; its text is one line for a person to act on."""


class ConfigError(AgentError):
    """A setting is missing, unknown or out of range; the text names key, value and expectation."""


class StoreError(AgentError):
    """The device's database cannot be opened or is not the one that is expected."""


class InteractionError(AgentError):
    """An interaction is not well formed, or names an item outside the catalogue.

    The text also says what was found, for the person who gave it.

    Attributes:
        reason: what is wrong, without any of the person's data: fit for a log.
    """

    def __init__(self, reason: str, *, found: str | None = None) -> None:
        super().__init__(reason if found is None else f"{found}; {reason}")
        self.reason = reason


class RuntimeUnavailableError(AgentError):
    """A runtime is unknown or not installed; the text names the extra to install."""


class ProgramError(AgentError):
    """A program cannot be loaded, does not fit the manifest, or failed while it ran."""


class TrainingError(AgentError):
    """A local update gave no usable result; nothing on the device was changed by it."""


class DownloadError(AgentError):
    """Something could not be downloaded."""


class TransientDownloadError(DownloadError):
    """The network, the service or the disk failed; the same request may succeed later."""


class PermanentDownloadError(DownloadError):
    """The service does not have it, or it is not what was announced; asking again is no use."""


class RefusedConnectionError(AgentError):
    """A broker could not be reached, or refused the device.

    Attributes:
        transient: whether waiting can help; false for credentials and certificates, which a
            person has to correct.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient
