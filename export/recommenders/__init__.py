"""The recommenders that ship with the project; each module is one model and its paper.

All are made from keyword arguments, with one word for one thing: ``items`` (which must be given),
``dimension``, ``loss``, ``context``, ``history``, ``features``, ``l2`` and ``seed``, where a model
has them. What else one takes, its docstring says.

    RECOMMENDERS["fm"](items=4_082, context={"weekday": 7, "weather": 9}, seed=1)
"""

from collections.abc import Mapping

from export.recommender import Recommender
from export.recommenders.fm import FactorisationMachine
from export.recommenders.linear import LinearModel
from export.recommenders.mf import MatrixFactorisation
from export.recommenders.neumf import NeuralMatrixFactorisation
from export.recommenders.sasrec import SasRec
from export.recommenders.two_tower import TwoTower

__all__ = ["RECOMMENDERS"]

RECOMMENDERS: Mapping[str, type[Recommender]] = {
    "linear": LinearModel,
    "mf": MatrixFactorisation,
    "neumf": NeuralMatrixFactorisation,
    "fm": FactorisationMachine,
    "two_tower": TwoTower,
    "sasrec": SasRec,
}
"""The recommenders by name."""
