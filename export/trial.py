"""Try a loss and a score with numbers, and say what is wrong with them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from export.errors import RecommenderError, reason
from export.origin import Call, Recorder, place_of_error
from export.recommender import TABLES, TRAINED, Recommender, example_batch, parameter_values

__all__ = ["check_samples_apart", "try_loss", "try_score"]

_NOISE = 0.3
_ABSOLUTE, _RELATIVE = 1e-5, 1e-4
_POSITIONS = ("item", "positive", "negative", "history")
_LOOK_UPS = frozenset({"aten.index", "aten.embedding", "aten.index_select", "aten.gather"})

Batch = Mapping[str, Tensor]


def try_loss(recommender: Recommender, samples: int, rows: int) -> list[Call]:
    """Evaluate a loss, and refuse one that cannot be trained on a device.

    Args:
        recommender: the model with local tables; the values of its parameters change.
        samples: how many to try it with.
        rows: of the local tables.

    Returns:
        The operators that the loss is made of.

    Raises:
        RecommenderError: the loss fails; has a wrong shape; changes what it should only read; draws
            random numbers; reads a constant by item; is not finite where a window is empty; or
            does without one of the trained parameters.
    """
    _leave_zero(recommender)
    batch = example_batch(recommender, samples, rows)
    losses, calls = _evaluate("loss", lambda: recommender.loss(*batch.values()))
    _check_result("loss", losses, samples, "samples")
    _check_calls("loss", recommender, batch, calls)
    if not losses.requires_grad:
        raise RecommenderError("loss() depends on no parameter")
    _check_gradients(recommender, batch, losses)
    return calls


def try_score(recommender: Recommender, situation: Batch, rows: int) -> list[Call]:
    """Evaluate a score, and refuse one that cannot be compiled.

    Args:
        recommender: the model with local tables; the values of its parameters change.
        situation: the arguments of the score.
        rows: of the local tables.

    Returns:
        The operators that the score is made of.

    Raises:
        RecommenderError: the score fails; has a wrong shape; changes what it should only read;
            draws random numbers; or reads a constant by item.
    """
    _leave_zero(recommender)
    scores, calls = _evaluate("score", lambda: recommender.score(**situation))
    _check_result("score", scores, rows, "rows")
    _check_calls("score", recommender, situation, calls)
    return calls


def check_samples_apart(recommender: Recommender, samples: int, rows: int) -> None:
    """Refuse a loss that mixes its samples: half of a batch alone must have the same losses.

    Args:
        recommender: the model with local tables, after `try_loss`.
        samples: how many to try it with.
        rows: of the local tables.

    Raises:
        RecommenderError: it mixes them.
    """
    batch = example_batch(recommender, samples, rows)
    half = {name: values[: samples // 2] for name, values in batch.items()}
    together, alone = (recommender.loss(*inputs.values()) for inputs in (batch, half))
    same = together[: len(alone)], alone
    if not torch.allclose(*same, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True):
        raise RecommenderError(
            "the loss of a sample depends on the other samples of its batch; use no mean, sum, "
            "sort or normalisation over the samples"
        )


def _leave_zero(recommender: Recommender) -> None:
    """Zeros, as in local tables and at many a start, hide what depends on what."""
    random = torch.Generator().manual_seed(0)
    roles = recommender.roles()
    for name, value in parameter_values(recommender).items():
        if roles[name] in TRAINED | TABLES:
            value += _NOISE * torch.randn(value.shape, generator=random)


def _evaluate(function: str, call: Callable[[], Tensor]) -> tuple[Tensor, list[Call]]:
    recorder = Recorder()
    try:
        with recorder:
            result = call()
    except Exception as error:  # whatever a person's code may raise
        raise RecommenderError(_failure(function, error)) from error
    return result, recorder.calls


def _failure(function: str, error: Exception) -> str:
    place = place_of_error(error)
    if "in-place operation" in str(error):
        return f"{function}() changes a parameter in place{place}; compute a new tensor instead"
    failure = f"{function}() fails{place} ({type(error).__name__}: {reason(error)})"
    if isinstance(error, IndexError):
        failure += (
            "; positions count in the local tables, so what has a row for each item needs the "
            "role rows or frozen-rows"
        )
    return failure


def _check_result(function: str, result: object, count: int, of: str) -> None:
    if not isinstance(result, Tensor):
        raise RecommenderError(f"{function}() returned {result!r}; expected a tensor")
    if result.shape != (count,) or result.dtype is not torch.float32:
        raise RecommenderError(
            f"{function}() returned {result.dtype} {list(result.shape)} for {count} {of}; "
            f"expected torch.float32 [{count}], one number for each"
        )


def _check_calls(
    function: str, recommender: Recommender, batch: Batch, calls: Sequence[Call]
) -> None:
    parameters, buffers = parameter_values(recommender), dict(recommender.named_buffers())
    names = {_storage(t): name for name, t in {**buffers, **parameters, **batch}.items()}
    computed: set[int] = set()
    for call in calls:
        changed = [names[storage] for storage in _storages(call.written) if storage in names]
        if changed:
            raise RecommenderError(
                f"{function}() changes {changed[0]!r} in place{call.place} ({call.name}); compute "
                "a new tensor instead, and keep no count or statistic of batches"
            )
        if call.draws:
            raise RecommenderError(
                f"{function}() draws random numbers{call.place} ({call.name}); no runtime could "
                "repeat them, so do without dropout and noise"
            )
        known = computed | _storages([*parameters.values(), *batch.values()])
        if call.name in _LOOK_UPS and _reads_by_item(call, batch, known):
            raise RecommenderError(
                f"{function}() reads a constant by item{call.place}; positions count in the local "
                "tables, so register it as a buffer of the shape [items, width] with the role "
                "frozen-rows"
            )
        computed |= _storages(call.result)


def _reads_by_item(call: Call, batch: Batch, known: set[int]) -> bool:
    """Whether a look-up reads something that is not known at the positions of items."""
    table, *indices = call.arguments.values()
    positions = _storages([batch[name] for name in _POSITIONS if name in batch])
    return bool(_storages(table) - known) and not positions.isdisjoint(_storages(indices))


def _storages(values: object) -> set[int]:
    return {_storage(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _check_gradients(recommender: Recommender, batch: Batch, losses: Tensor) -> None:
    weight = torch.ones_like(losses)
    if "present" in batch:
        weight = (batch["present"].sum(1) > 0).float()
    trained = {n: p for n, p in recommender.named_parameters() if p.requires_grad}
    gradients = _gradients((weight * losses).sum(), trained)
    kept = losses[weight > 0]
    if torch.isfinite(kept).all() and not all(torch.isfinite(g).all() for g in gradients):
        raise RecommenderError(
            "the loss or its gradient is not finite where a window is empty (present is 0 "
            "everywhere); divide by at least 1, and mask with a large number in place of infinity"
        )


def _gradients(objective: Tensor, trained: Mapping[str, nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(objective, list(trained.values()), allow_unused=True)
    for name, gradient in zip(trained, found, strict=True):
        if gradient is None:
            raise RecommenderError(f"parameter {name!r} takes no part in the loss; remove it")
    return [gradient for gradient in found if gradient is not None]
