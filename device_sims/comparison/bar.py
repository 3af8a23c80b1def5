"""What a person sees while runs are under way: one bar for all of them, and a line for each."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from device_sims.comparison.pool import Done, Failed, Moved, News

__all__ = ["Bar"]


class Bar:
    """A bar over the runs that are missing, as a context; none where stderr is not a terminal.

    Args:
        total: runs, finished or not.
        missing: those that are not.
    """

    def __init__(self, total: int, missing: int) -> None:
        self._total, self._done = total, total - missing
        self._under_way = dict[str, Moved]()
        self._bar = tqdm(
            total=float(missing),
            disable=not sys.stderr.isatty(),
            bar_format="{percentage:3.0f} %|{bar}| {elapsed}, {remaining} to go{postfix}",
            dynamic_ncols=True,
            leave=False,
        )
        if self._done:
            self.say(f"{self._done} of {total} runs are there already")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, news: News) -> None:
        """Something happened."""
        before = self._under_way.pop(news.key, None)
        share = before.share if before else 0.0
        if isinstance(news, Moved):
            self._under_way[news.key] = news
            self._bar.update(news.share - share)
        else:
            self._bar.update(1.0 - share)
        if isinstance(news, Done):
            self._done += 1
            self.say(f"{self._done:>4} of {self._total}   {news.title}")
        if isinstance(news, Failed):
            self.say(f"FAILED: {news.title}: {news.error} (see failed-{news.key}.txt)")
        self._bar.set_postfix_str("; ".join(run.title for run in self._under_way.values()))

    def say(self, line: str) -> None:
        """A line that stays."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()
