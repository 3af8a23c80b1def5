"""Runtimes by name, imported only when one is asked for."""

from importlib import import_module

from edge_agent.errors import RuntimeUnavailableError
from edge_agent.runtimes.protocol import Runtime

__all__ = ["open_runtime"]

# name: (module of this package, class, extra of the distribution that installs it)
RUNTIMES = {"onnx": ("edge_agent.runtimes.onnx", "OnnxRuntime", "agent")}


def open_runtime(name: str) -> Runtime:
    """Make a runtime ready.

    Raises:
        RuntimeUnavailableError: there is none of that name, or it is not installed.
    """
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise RuntimeUnavailableError(f"runtime is {name!r}; expected one of {known}")
    module, kind, extra = RUNTIMES[name]
    try:
        runtime: Runtime = getattr(import_module(module), kind)()
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"the runtime {name!r} is not installed ({error}); "
            f"install it with: pip install 'rivulet[{extra}]'"
        ) from None
    return runtime
