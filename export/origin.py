"""Where in a person's module an operator or an error comes from."""

import linecache
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from export.errors import causes

__all__ = ["Call", "Recorder", "place_of_error", "place_of_operator", "places_of"]

_HERE = Path(__file__).parent
_PACKAGES = Path(torch.__file__).parent.parent
_LIBRARIES = [_PACKAGES / name for name in ("torch", "onnxscript", "onnx_ir", "onnx")]
_STANDARD = Path(sysconfig.get_path("stdlib"))


@dataclass(frozen=True)
class Call:
    """One operator that ran: what went in, what came out, and the line that asked for it."""

    operator: Any
    arguments: Mapping[str, Any]
    result: Any
    place: str

    @property
    def name(self) -> str:
        """The operator's name, for example ``aten.add_``."""
        return str(self.operator.overloadpacket)

    @property
    def written(self) -> list[Any]:
        """The arguments that the operator changes in place."""
        written = [a.name for a in self.operator._schema.arguments if _is_written(a)]
        return [self.arguments[name] for name in written if name in self.arguments]

    @property
    def draws(self) -> bool:
        """Whether the operator draws random numbers."""
        tagged = torch.Tag.nondeterministic_seeded in self.operator.tags
        names = [argument.name for argument in self.operator._schema.arguments]
        # Attention has the tag for a dropout of its own.
        return tagged and ("dropout_p" not in names or bool(self.arguments.get("dropout_p")))


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, it records each operator that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self._entered: FrameType | None = None

    def __enter__(self) -> Self:
        self._entered = sys._getframe(1)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and note it."""
        result = func(*args, **(kwargs or {}))
        names = [argument.name for argument in func._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        place = _first_place(self._frames(sys._getframe(1)))
        self.calls.append(Call(func, given, result, place))
        return result

    def _frames(self, frame: FrameType | None) -> Iterator[tuple[str, int]]:
        while frame is not None and frame is not self._entered:
            yield frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back


def place_of_error(error: BaseException) -> str:
    """The last line of a person's module that an error passed, as `` at file:line``, or ``""``."""
    for link in reversed(causes(error)):
        passed = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(link.__traceback__)]
        if place := _first_place(reversed(passed)):
            return place
    return ""


def places_of(calls: Iterable[Call]) -> dict[str, str]:
    """The first line that asked for each operator; for `place_of_operator`."""
    places: dict[str, str] = {}
    for call in calls:
        places.setdefault(_bare(call.name), call.place)
    return places


def place_of_operator(places: Mapping[str, str], name: str) -> str:
    """Where an operator was asked for, as `` at file:line``, or ``""``.

    Args:
        places: what ran.
        name: the operator, under its own name, or under one that PyTorch gives to it or to its
            gradient on the way to ONNX.
    """
    return places.get(_bare(name), "")


def _bare(name: str) -> str:
    last = name.rsplit(".", maxsplit=1)[-1]
    return last.removeprefix("special_").removeprefix("bessel_").removesuffix("_backward")


def _first_place(frames: Iterable[tuple[str, int]]) -> str:
    for file, line in frames:
        if _is_personal(Path(file)):
            code = linecache.getline(file, line).strip()
            return f" at {file}:{line}: {code}" if code else f" at {file}:{line}"
    return ""


def _is_personal(file: Path) -> bool:
    # The recommenders that ship, a folder below, are modules like a person's own.
    if file.parent == _HERE or any(library in file.parents for library in _LIBRARIES):
        return False
    return _STANDARD not in file.parents or "site-packages" in file.parts
