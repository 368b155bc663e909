"""The first input rows of a run as a trial: where not one of them gives a sample, the others are not asked about.

Which rows are tried depends on their order alone, so a run ends in this way always or never. A row that the teacher
could not be asked about (an outage, a spent budget) says nothing of teacher and flow, and lets the trial pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ilab.data import Rejected

FIRST = 64  # input rows: of a flow that passes one in twenty, all of them fail once in twenty-seven runs
UNASKED = "the teacher failed"  # the beginning of the reason of a row that could not be asked about


class Trial:
    """``asks`` says of each input row whether its chain asks the teacher; the first ``rows`` that do are tried.

    ``error`` makes the exception from what was refused. A run of no more input rows than that needs no trial.
    """

    def __init__(self, asks: Sequence[bool], error: Callable[[list[Rejected]], Exception], rows: int = FIRST) -> None:
        tried = [index for index, one in enumerate(asks) if one]
        self._open = set(tried[:rows] if len(tried) > rows else ())
        self._error = error
        self._refused: dict[int, list[Rejected]] = {}

    def finished(self, index: int, samples: int, refused: list[Rejected]) -> None:
        """The input row ``index`` is through. Raises the error once the last of those tried has failed."""
        if index not in self._open:
            return
        if samples or any(entry.reason.startswith(UNASKED) for entry in refused):
            self._open.clear()
            return
        self._open.discard(index)
        self._refused[index] = refused
        if not self._open:
            raise self._error([entry for _, found in sorted(self._refused.items()) for entry in found])
