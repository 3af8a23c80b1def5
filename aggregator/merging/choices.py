"""The words of a merge rule: each names one of the ways of doing one thing."""

from enum import StrEnum

__all__ = ["Kind", "Optimizer", "RowCorrection", "Staleness", "StalenessScope", "Weighting"]


class Kind(StrEnum):
    """How a buffer of updates becomes one change; each is a module of this package."""

    FEDAVG = "fedavg"
    FEDASYNC = "fedasync"
    FEDBUFF = "fedbuff"
    FADAS = "fadas"
    CA2FL = "ca2fl"


class Weighting(StrEnum):
    """What an update weighs before its staleness is looked at."""

    UNIFORM = "uniform"
    EXAMPLES = "examples"


class Staleness(StrEnum):
    """The function from an update's staleness to its weight; see ``staleness``."""

    CONSTANT = "constant"
    POLYNOMIAL = "polynomial"
    HINGE = "hinge"


class StalenessScope(StrEnum):
    """What counts as staleness.

    ``model``: every version since the base. ``row``: for a row of an item table, only the versions
    in which that row changed; see ``row_staleness``.
    """

    MODEL = "model"
    ROW = "row"


class RowCorrection(StrEnum):
    """How a row of an item table is corrected for how few devices touch it.

    ``none``: a row which one of twenty updates touches moves by a twentieth. ``touched``: a row is
    averaged over the updates of the buffer that touch it. ``heat``: FedSubAvg, by how many devices
    of the fleet touch it; see ``heat``.
    """

    NONE = "none"
    TOUCHED = "touched"
    HEAT = "heat"


class Optimizer(StrEnum):
    """What the server does with a buffer's change; see ``optimizers``."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    ADAGRAD = "adagrad"
    YOGI = "yogi"
    ADAM = "adam"
    AMSGRAD = "amsgrad"
