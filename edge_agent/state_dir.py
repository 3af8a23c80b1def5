"""What lies in a device's state folder, and how to open it."""

from pathlib import Path

from edge_agent.config import AgentConfig, TlsFiles
from edge_agent.downloads import Downloads
from edge_agent.errors import StoreError
from edge_agent.store import Store

__all__ = ["database_path", "open_downloads", "open_store"]


def database_path(config: AgentConfig) -> Path:
    """Where the device's database lies."""
    return config.state_dir / "agent.db"


def open_store(config: AgentConfig, *, create: bool = False) -> Store:
    """Open the device's database; several processes may do so.

    Args:
        config: settings of the device.
        create: make folder and database when they are not there.

    Raises:
        StoreError: there is none, or it belongs to another device.
        OSError: the folder cannot be made.
    """
    path = database_path(config)
    if create:
        config.state_dir.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise StoreError(
            f"{config.state_dir} has no database yet; start the agent, or import interactions"
        )
    store = Store(path, durability=config.durability)
    try:
        store.claim(config.device)
    except StoreError:
        store.close()
        raise
    return store


def open_downloads(config: AgentConfig) -> Downloads:
    """The device's own folder of downloads.

    Raises:
        ConfigError: a TLS file cannot be used.
        OSError: the folder cannot be made.
    """
    if not config.aggregator.startswith("https") or config.tls == TlsFiles():
        return Downloads(config.state_dir, config.aggregator)
    # TLS is expensive to import, and many devices talk to a gateway without.
    from edge_agent.tls import tls_context

    return Downloads(config.state_dir, config.aggregator, tls=tls_context(config.tls))
