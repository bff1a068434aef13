"""Objects of a config: entries with `class_path` and `init_args`, LightningCLI's convention."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .errors import translate_errors


@contextmanager
def entry_errors(key: str) -> Iterator[None]:
    """Turns the errors of importing and constructing a class into a UsageError that names the entry."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    with translate_errors(key, AttributeError, ImportError, MisconfigurationException):
        yield


def load_class(entry: Any) -> type:
    """Returns the class of an entry.

    Raises:
        ValueError: it is not an entry.
        ImportError, AttributeError: there is no such class.
    """
    if not isinstance(entry, Mapping) or "class_path" not in entry or entry.keys() - {"class_path", "init_args"}:
        raise ValueError("expected class_path, the import path of a class, and init_args")
    module, _, name = str(entry["class_path"]).rpartition(".")
    if not module:
        raise ValueError(f"class_path={name}: expected module.Class")
    found = getattr(import_module(module), name)
    if not isinstance(found, type):
        raise TypeError(f"class_path={entry['class_path']}: expected a class")
    return found


def instantiate(key: str, entry: Any, base: type, **arguments: Any) -> Any:
    """Returns an object of the class of an entry.

    Args:
        key: of the entry in the config, for messages.
        base: the class that it must be a subclass of.
        arguments: more arguments, which those of the entry replace.

    Raises:
        UsageError: no such class, another kind of class, or wrong arguments.
    """
    with entry_errors(key):
        found = load_class(entry)
        if not issubclass(found, base):
            raise TypeError(f"class_path={entry['class_path']}: expected a subclass of {base.__name__}")
        return found(**{**arguments, **(entry.get("init_args") or {})})
