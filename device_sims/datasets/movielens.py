"""MovieLens in every form that GroupLens publishes it in.

| release | file | line |
|---|---|---|
| ml-100k | `u.data` | `user<TAB>item<TAB>rating<TAB>time` |
| ml-1m, ml-10m | `ratings.dat` | `user::item::rating::time` |
| ml-20m, ml-25m, ml-latest | `ratings.csv` | `user,item,rating,time` under a header |

The last one without its header, as other projects pass ml-100k on, is read too. The format is told
from the first lines, not from the name of the file.
"""

import re
from pathlib import Path

from device_sims.datasets.errors import DatasetError, FormatError
from device_sims.datasets.interactions import Interactions, index_events
from device_sims.datasets.layout import Layout
from device_sims.datasets.lines import first_lines, read_events

__all__ = ["load_movielens"]

_PEEKED_LINES = 5
_HEADER = "userId,movieId,rating,timestamp"
_SEPARATORS = {"::": "::", "\t": "<TAB>", ",": ","}
_FORMATS = (
    "a MovieLens ratings file: lines of user<TAB>item<TAB>rating<TAB>time (u.data), of "
    f"user::item::rating::time (ratings.dat), or of user,item,rating,time below the header "
    f"{_HEADER} or without one (ratings.csv)"
)


def load_movielens(
    path: Path | str, *, name: str = "movielens", skip_bad_lines: bool = False
) -> Interactions:
    """Read a MovieLens ratings file; any rating is a positive interaction.

    Args:
        path: The ratings file itself, unpacked.
        name: What reports call the data set.
        skip_bad_lines: Leave broken lines out and count them, instead of stopping at the first.

    Raises:
        FormatError: The first lines fit none of the formats.
        LineError: A line is broken, and `skip_bad_lines` is off.
        DatasetError: The file cannot be read, or no user has enough interactions.
    """
    path = Path(path)
    if path.is_dir():
        raise DatasetError(
            f"{path} is a directory; name the ratings file in it: u.data, ratings.dat or "
            "ratings.csv"
        )
    return index_events(name, read_events(path, _detect(path), skip_bad_lines=skip_bad_lines))


def _detect(path: Path) -> Layout:
    """Take the first format that any of the first lines fits, so that a broken one stands out."""
    lines = first_lines(path, _PEEKED_LINES)
    if lines and lines[0].strip().lower() == _HEADER.lower():
        return _layout(",", header=True)
    for separator in _SEPARATORS:
        rating = re.compile(separator.join([r"\d+", r"\d+", r"\d+(\.\d+)?", r"\d+"]))
        if any(rating.fullmatch(line) for line in lines):
            return _layout(separator, header=False)
    raise FormatError(path, seen=lines[0] if lines else "", expected=_FORMATS)


def _layout(separator: str, *, header: bool) -> Layout:
    shown = _SEPARATORS[separator].join(["user", "item", "rating", "time"])
    return Layout(
        separator=separator,
        width=4,
        user=0,
        item=1,
        rating=2,
        time=3,
        numeric_labels=True,
        quoted=False,
        header=header,
        expected=f"{shown}, all numbers",
    )
