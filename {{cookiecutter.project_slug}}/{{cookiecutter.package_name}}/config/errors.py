"""Errors of the user's side: one line on the terminal, no traceback."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class UsageError(ValueError):
    """A bad input, told in one line: what is wrong and what would be right. The scripts print it and exit with 2."""


class Diverged(UsageError):
    """A training that cannot go on. What the run has logged stays, to be looked at."""


def require(holds: bool, message: str) -> None:
    """Raises `UsageError(message)` unless `holds`."""
    if not holds:
        raise UsageError(message)


@contextmanager
def translate_errors(section: str = "", *kinds: type[Exception]) -> Iterator[None]:
    """Turns OSError, TypeError, ValueError and `kinds` of the code inside into a UsageError that names the section.

    A closed pipe, as behind `| head`, is no error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (UsageError, BrokenPipeError)) or not isinstance(
            error, (OSError, TypeError, ValueError, *kinds)
        ):
            raise
        raise UsageError(f"{section}: {first_line(error)}".removeprefix(": ")) from error


def own_words(error: UsageError) -> str:
    """Returns the message, without the traceback that torch adds to an error in a DataLoader's worker."""
    return str(error).rpartition(f"{UsageError.__name__}: ")[2].strip()


def first_line(error: Exception) -> str:
    """Returns the first line of the message, or the type of an error that has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """Returns ` (did you mean X?)` with the closest of `words`, as a whole or else by what follows the last dot."""
    close = difflib.get_close_matches(word, words, n=1)
    if not close:
        tails = {known.rpartition(".")[2]: known for known in words}
        close = [tails[tail] for tail in difflib.get_close_matches(word.rpartition(".")[2], list(tails), n=1)]
    return f" (did you mean {close[0]}?)" if close else ""
