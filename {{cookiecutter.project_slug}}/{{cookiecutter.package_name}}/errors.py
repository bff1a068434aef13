"""What goes wrong on the user's side."""

import difflib
from collections.abc import Sequence


class UsageError(ValueError):
    """Bad input, told in one line: what is wrong and what would be right. The scripts print it and exit with 2."""


class Diverged(UsageError):
    """What was asked for cannot be trained. What the run has logged stays, to be looked at."""


def require(holds: bool, message: str) -> None:
    """Raises `UsageError(message)` unless `holds`."""
    if not holds:
        raise UsageError(message)


def own_words(error: UsageError) -> str:
    """What it says; of one from a DataLoader's worker without the traceback that torch puts before it."""
    return str(error).rpartition(f"{UsageError.__name__}: ")[2].strip()


def first_line(error: Exception) -> str:
    """Of what `error` says, or its type where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """` (did you mean X?)` with the closest of `words`, as a whole or else by what follows the last dot; or nothing."""
    close = difflib.get_close_matches(word, words, n=1)
    if not close:
        tails = {known.rpartition(".")[2]: known for known in words}
        close = [tails[tail] for tail in difflib.get_close_matches(word.rpartition(".")[2], list(tails), n=1)]
    return f" (did you mean {close[0]}?)" if close else ""
