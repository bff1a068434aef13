"""What the scripts share: bad input as one line with status 2, and silence of what the reader can do nothing about."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

from .errors import UsageError, own_words

NOISE = (
    r".*does not have many workers.*",  # configs/data/ says how many, and small samples want none
    r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
    r".*Total length of `list` across ranks is zero.*",  # data without a validation split
    r".*ModelCheckpoint\(monitor=.*could not find the monitored key.*",  # the same
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # lightning's, about torch
    r".*recommended to use `self.log\(.*sync_dist=True\)`.*",  # torchmetrics reduce themselves
)


def run(main: Callable[[list[str]], object]) -> None:
    """Calls `main` with the command line; a UsageError becomes one line on stderr and exit status 2.

    Ctrl-C, and a reader such as `head` that has had enough, end it without a word, with the statuses that shells know.
    """
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UsageError as error:
        print(f"error: {own_words(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(141)


def quiet() -> None:
    """Drops Lightning's announcements, not its real warnings; to be called after its import, which sets its level."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
