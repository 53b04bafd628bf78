"""Calls that fail, in place of an adapter's own."""

from collections.abc import Callable
from typing import Never


def refuse(error: Exception) -> Callable[..., Never]:
    """A function that takes any arguments and raises this error."""

    def refusing(*_: object, **__: object) -> Never:
        raise error

    return refusing
