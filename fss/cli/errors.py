"""Errors as a user should see them: a paragraph for what can be mended, a traceback for a fault of the program."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fss.display.shown import shown

FULL = "HYDRA_FULL_ERROR"  # Hydra's own switch for tracebacks
MENDABLE = 2  # exit code
INTERRUPTED = 128 + signal.SIGINT  # exit code after Ctrl-C, as shells count it
UNREAD = 128 + signal.SIGPIPE  # exit code after nobody reads the output any more, as shells count it
_OUTPUT = 1  # the file descriptor of what is printed

PLACE = "Make room, or choose another place (outputs=DIR, out=DIR or --out DIR)"
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_PROJECT = Path(__file__).parents[1]
# What torch makes of an error in a loader's process: the file of the last line of its traceback, and its text.
_IN_WORKER = re.compile(
    r"Caught \w+ in DataLoader worker process \d+\.\nOriginal Traceback.*\n"
    r'  File "(?P<file>[^"]+)", line \d+[^\n]*\n'
    r"(?: {4}[^\n]*\n)*[\w.]+: (?P<what>.*?)\n*$",
    re.DOTALL,
)
# What torch says of tensors that no memory has room for.
_NO_ROOM = re.compile(r"out of memory|allocate memory|(calculation|multiplication) overflow")
_GROUP_WITHOUT_MEMBER = "Config group override must be a string or a list"  # Hydra's words for method=null
_OF_LIGHTNING = "MisconfigurationException"  # named, since importing it takes seconds
_UNKNOWN = "Could not override"  # Hydra's words for a setting that the configuration lacks
_given = os.environ.get(FULL) == "1"  # by the user, before a script switches it on for itself


def run_script(main: Callable[[], Any]) -> None:
    """Runs the main function of a script.

    What a user can mend (a setting, a file, a full disk) is printed as one paragraph, `error: ...`, and ends the
    program with exit code 2. If nobody reads the output any more, it ends without a word, with exit code 141. A
    fault of the program ends it with its traceback. `HYDRA_FULL_ERROR=1` shows every traceback.
    """
    if _given:
        main()
        return
    os.environ[FULL] = "1"  # has Hydra raise errors in place of printing its own extract of them
    try:
        main()
    except KeyboardInterrupt:
        print(
            "\ninterrupted: what is finished is kept; the same command goes on from there, a training with "
            "resume=true",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    except Exception as error:
        _leave(error)
        raise


class Paragraph(Callback):
    """Prints what a job ended with before Hydra does, in the same way."""

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Leaves the program if the job failed for a reason that a user can mend."""
        value = kwargs["job_return"]._return_value  # the property would raise the error anew
        if isinstance(value, Exception):
            _leave(value)


def _leave(error: Exception) -> None:
    if tell(error):
        sys.exit(MENDABLE)


def tell(error: Exception) -> bool:
    """Prints what a user can mend; False for what is to be raised: a fault, or all with HYDRA_FULL_ERROR=1.

    Raises:
        SystemExit: Nobody reads the output any more, as after `head` has ended; nothing is printed.
    """
    if isinstance(error, BrokenPipeError) and not _given and _reader_has_left():
        sys.exit(UNREAD)
    text = None if _given else mendable(error)
    if text is not None:
        print(f"error: {shown(text, lines=True)}", file=sys.stderr)
    return text is not None


def _reader_has_left() -> bool:
    """Whether nobody reads the output any more; then it goes nowhere, so that Python can flush it at its end."""
    poll = select.poll()  # a flush would not tell: what it could not write is gone
    poll.register(_OUTPUT, 0)
    if not poll.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _OUTPUT)
    os.close(nowhere)
    return True


def mendable(error: BaseException) -> str | None:
    """What to tell a user who can mend what caused an error; None for a fault of the program.

    Configuration errors are mendable, and what this program raises on purpose: a `ValueError`, an error of the
    operating system or the like from a `raise` of its own.
    """
    if isinstance(error, InstantiationException) and (reason := error.__cause__) is not None:
        refuses = isinstance(reason, ValueError) or type(reason).__name__ == _OF_LIGHTNING
        if refuses and not _is_ours(reason):  # a library, what it was given
            built = re.search(r"full_key: (\S+)", str(error))
            return f"settings of {built[1]}: {reason}" if built else str(reason)
        return mendable(reason)
    if isinstance(error, ImportError) and isinstance(error.__cause__, ModuleNotFoundError):  # of a `_target_`
        return (
            f"no module {error.__cause__.name}, which a setting names or its module imports: install it, or put "
            "its folder into PYTHONPATH (PYTHONPATH=DIR python train.py ...)"
        )
    if isinstance(error, OverrideParseException):
        name, why = error.override.partition("=")[0], " ".join(str(error).partition("\n")[0].split())
        return (
            f"{error.override} cannot be read ({why}). A value with =, ~, commas, brackets or quotes is put in "
            f"quotes, once for Hydra and once for the shell: '{name}=\"VALUE\"'"
        )
    if isinstance(error, HydraException):
        if str(error).startswith(_UNKNOWN) and isinstance(error.__cause__, OmegaConfBaseException):
            return _unknown_setting(error.__cause__)
        cause = f" {error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        return " ".join(f"{error}{cause}".split())
    if isinstance(error, OmegaConfBaseException):
        return " ".join(str(error).split())
    if isinstance(error, ValueError) and str(error).startswith(_GROUP_WITHOUT_MEMBER):
        return "a group is given what is no member of it, such as null: name one, as in method=pfenet; see --help"
    ours = _is_ours(error)
    if _lacks_memory(error):  # also where a line of ours has called torch
        said = f" ({lines[0]})" if (lines := str(error).splitlines()) else ""
        return f"not enough memory{said}: lower batch_size, dataset.size, shot or what else was set large"
    if (told := _IN_WORKER.match(str(error))) is not None and isinstance(error, ValueError | OSError):
        return told["what"] if Path(told["file"]).is_relative_to(_PROJECT) else None
    if isinstance(error, OSError):
        where = (
            f": is the disk full, or the folder not yours to write? {PLACE}" if error.errno in _NO_PLACE else ""
        )
        return str(error) if ours else f"{error}{where}"
    kinds = (ValueError, RuntimeError, FloatingPointError, MemoryError, NotImplementedError)
    return str(error) if isinstance(error, kinds) and ours else None


def _unknown_setting(error: OmegaConfBaseException) -> str:
    """Says what there is in its place; Hydra advises to add the setting, which nothing would take."""
    place, parent = error.full_key or "", error.parent_node
    above, _, key = place.rpartition(".")
    if not isinstance(parent, DictConfig) or not parent:
        return f"there is no setting {place}: {above or 'what holds it'} has no parts"
    names = [name for name in _names(OmegaConf.to_container(parent)) if "." not in name]
    near = [f"{above}.{name}" if above else name for name in get_close_matches(key, names, 2)]
    if not near:  # one of that name elsewhere
        whole = OmegaConf.to_container(parent._get_root())
        near = [name for name in _names(whole) if name.rpartition(".")[2] == key][:3]
    if near:
        return f"there is no setting {place}: is it {' or '.join(near)}?"
    return f"there is no setting {place}; {f'in {above} ' if above else ''}there are {', '.join(names)}"


def _names(settings: Any, above: str = "") -> Iterator[str]:
    """The names of all settings, without Hydra's own."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name != "hydra" and not str(name).startswith("_"):
            yield f"{above}{name}"
            yield from _names(value, f"{above}{name}.")


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory was asked for that there is not."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NO_ROOM.search(str(error)) is not None
    )


def _is_ours(error: BaseException) -> bool:
    """Whether a line of this project raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(_PROJECT)


def environment() -> dict[str, str]:
    """The environment for a command that is to print its own errors in the same way."""
    return {name: value for name, value in os.environ.items() if name != FULL or _given}
