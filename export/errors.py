"""Errors of the exporter: each message names what is wrong and what to do about it."""

__all__ = ["ExportError", "PublishError", "RecommenderError", "causes", "reason"]


class ExportError(Exception):
    """A bundle cannot be built; the base of every error that this package raises on its own."""


class RecommenderError(ExportError):
    """A recommender breaks one of the rules in `export.recommender`, or cannot be exported."""


class PublishError(ExportError):
    """The aggregator could not be reached, or refused the bundle."""


def causes(error: BaseException) -> list[BaseException]:
    """An error and what it comes from, the first cause last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def reason(error: BaseException) -> str:
    """The first line of what an error comes from: PyTorch wraps its own in pages of advice."""
    first = causes(error)[-1]
    text = str(first).strip()
    return text.splitlines()[0] if text else type(first).__name__
