"""Runtimes by name, imported only when one is asked for."""

from importlib import import_module

from edge_agent.errors import RuntimeUnavailableError
from edge_agent.runtimes.protocol import Runtime

__all__ = ["open_runtime"]

# name: (module of this package, class, its engine's package, extra that installs the engine)
RUNTIMES = {
    "onnx": ("edge_agent.runtimes.onnx", "OnnxRuntime", "onnxruntime", "agent"),
    "executorch": (
        "edge_agent.runtimes.executorch",
        "ExecutorchRuntime",
        "executorch",
        "executorch",
    ),
    "ort-training": (
        "edge_agent.runtimes.ort_training",
        "OrtTrainingRuntime",
        "onnxruntime",
        "ort-training",
    ),
}


def open_runtime(name: str) -> Runtime:
    """Make a runtime ready.

    Raises:
        RuntimeUnavailableError: there is none of that name, or its engine is not installed or does
            not load.
    """
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise RuntimeUnavailableError(f"runtime is {name!r}; expected one of {known}")
    module, kind, engine, extra = RUNTIMES[name]
    try:
        runtime: Runtime = getattr(import_module(module), kind)()
    except ImportError as error:
        if _was_interrupted(error):
            raise KeyboardInterrupt from None
        # A stand-in for the import system may leave the name out.
        if isinstance(error, ModuleNotFoundError) and error.name in (engine, None):
            raise RuntimeUnavailableError(
                f"the runtime {name!r} is not installed ({error}); "
                f"install it with: pip install 'rivulet[{extra}]'"
            ) from None
        raise RuntimeUnavailableError(f"the runtime {name!r} does not load: {error}") from error
    return runtime


def _was_interrupted(error: BaseException | None) -> bool:
    # Extension modules turn a Ctrl-C that arrives while they load into an ImportError.
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
