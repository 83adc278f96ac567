"""How a script ends that cannot go on: what somebody can mend is one paragraph, anything else a whole trace."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from hydra.errors import CompactHydraException

from fss.shown import shown

P = ParamSpec("P")
R = TypeVar("R")
_OURS = str(Path(__file__).parents[1])


def told_plainly(work: Callable[P, R]) -> Callable[P, R]:
    """Has Hydra print the message alone of errors that this program words, and of files that cannot be used.

    The error stays one of its own kind; `HYDRA_FULL_ERROR=1` shows where it came from. After Ctrl-C the program
    says how to go on and ends with the exit code 130.
    """

    @functools.wraps(work)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except KeyboardInterrupt:
            print(
                "\nInterrupted; what is finished is kept. The same command goes on from there, a training with "
                "resume=true",
                file=sys.stderr,
            )
            raise SystemExit(130) from None
        except (OSError, ValueError) as error:
            if isinstance(error, CompactHydraException) or not _is_worded(error):
                raise
            kind = OSError if isinstance(error, OSError) else ValueError
            told = type(type(error).__name__, (CompactHydraException, kind), {})
            raise told(shown(error, lines=True)) from error

    return wrapped


def _is_worded(error: BaseException) -> bool:
    return isinstance(error, OSError) or _origin(error.__traceback__).startswith(_OURS)


def _origin(trace: TracebackType | None) -> str:
    """The file in which an error was raised."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename
