"""Errors of the exporter: each message names what is wrong and what to do about it."""

__all__ = ["ExportError", "PublishError", "RecommenderError", "reason"]


class ExportError(Exception):
    """A bundle cannot be built; the base of every error that this package raises on its own."""


class RecommenderError(ExportError):
    """A recommender breaks one of the rules in `export.recommender`, or cannot be exported."""


class PublishError(ExportError):
    """The aggregator could not be reached, or refused the bundle."""


def reason(error: BaseException) -> str:
    """The first line of what an error comes from: PyTorch wraps its own in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
