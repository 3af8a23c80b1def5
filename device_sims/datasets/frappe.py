"""Frappe: which app was used on a phone, and in which situation.

Baltrunas, Church, Karatzoglou, Oliver: Frappe: Understanding the usage and perception of mobile app
recommendations in-the-wild, arXiv:1505.03014. Its licence forbids shipping it.
"""

from collections.abc import Sequence
from pathlib import Path

from device_sims.datasets.delimited import load_delimited
from device_sims.datasets.interactions import Interactions

__all__ = ["FRAPPE_CONTEXT", "FRAPPE_FEATURES", "load_frappe"]

FRAPPE_CONTEXT = ("daytime", "weekday", "isweekend", "homework", "weather")
FRAPPE_FEATURES = ("cost",)


def load_frappe(
    path: Path | str,
    *,
    context_columns: Sequence[str] = FRAPPE_CONTEXT,
    feature_columns: Sequence[str] = FRAPPE_FEATURES,
    repeats: bool = False,
    name: str = "frappe",
    skip_bad_lines: bool = False,
) -> Interactions:
    """Read `frappe.csv`, a table with tabs between the fields.

    There are no times: the order of the file is taken for the order in time. A line is an app used
    in a situation, whatever its count `cnt`. The label "unknown" is id 0 of its field.

    Args:
        path: The file, UTF-8.
        context_columns: Columns with the situation; `country` and `city` are there too.
        feature_columns: Columns that describe the app.
        repeats: Whether an app used in several situations is several interactions; otherwise the
            first in the file is the one that counts.
        name: What reports call the data set.
        skip_bad_lines: Leave broken lines out and count them, instead of stopping at the first.

    Raises:
        FormatError: The header is not Frappe's.
        LineError: A line is broken, and `skip_bad_lines` is off.
        DatasetError: The file cannot be read, or no user has enough interactions.
    """
    return load_delimited(
        path,
        time_column=None,
        context_columns=context_columns,
        feature_columns=feature_columns,
        unknown_label="unknown",
        repeats=repeats,
        name=name,
        skip_bad_lines=skip_bad_lines,
    )
