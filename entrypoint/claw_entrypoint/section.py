"""Checked reading of a JSON document, so that every refusal names its place; pydantic would cost a PID 1 80 ms."""

from claw_entrypoint.errors import ContractError


class Section:
    """One object of the document, with the pointer that an error about it names.

    Each reader raises `ContractError` when the member is missing (where it has no default) or of another kind.
    """

    __slots__ = ("fields", "where")

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ContractError(where, f"expected an object, found {_kind(value)}")
        self.fields: dict[str, object] = value
        self.where = where

    def at(self, key: str) -> str:
        return f"{self.where}/{key.replace('~', '~0').replace('/', '~1')}"

    def need(self, key: str) -> object:
        if key not in self.fields:
            raise ContractError(self.at(key), "is missing")
        return self.fields[key]

    def only(self, *allowed: str) -> None:
        """Refuse a member of another name: a typing error must not turn a rule off."""
        for key in self.fields:
            if key not in allowed:
                raise ContractError(self.at(key), f"is not one of {', '.join(allowed)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.need(key) if default is None else self.fields.get(key, default)
        return _text(value, self.at(key), empty=default == "")

    def path(self, key: str, default: str | None = None) -> str:
        value = self.text(key, default)
        return absolute(value, self.at(key)) if value or default is None else value

    def number(self, key: str) -> int:
        value = self.need(key)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise ContractError(self.at(key), f"expected a positive number, found {_kind(value)}")
        return value

    def flag(self, key: str) -> bool:
        value = self.need(key)
        if not isinstance(value, bool):
            raise ContractError(self.at(key), f"expected true or false, found {_kind(value)}")
        return value

    def items(self, key: str) -> list[tuple[object, str]]:
        """Members of an array, each with its pointer; a missing array is empty."""
        value = self.fields.get(key, [])
        if not isinstance(value, list):
            raise ContractError(self.at(key), f"expected an array, found {_kind(value)}")
        return [(item, f"{self.at(key)}/{index}") for index, item in enumerate(value)]

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(item, where) for item, where in self.items(key))

    def paths(self, key: str) -> tuple[str, ...]:
        return tuple(absolute(_text(item, where), where) for item, where in self.items(key))

    def section(self, key: str) -> "Section":
        return Section(self.need(key), self.at(key))

    def maybe(self, key: str) -> "Section":
        """The object under `key`; an empty one when there is none."""
        return Section(self.fields.get(key, {}), self.at(key))

    def mapping(self) -> dict[str, str]:
        return {key: self.text(key, "") for key in self.fields}


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), f"the number {value}")


def _text(value: object, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ContractError(where, f"expected a text, found {_kind(value)}")
    if "\0" in value or not (value or empty):
        raise ContractError(where, "holds a NUL character" if value else "is empty")
    return value


def absolute(value: str, where: str) -> str:
    """The same path, when it is absolute and nothing in it climbs.

    Raises:
        ContractError: It is not.
    """
    parts = value.split("/")[1:]
    if not value.startswith("/") or not all(parts) or "." in parts or ".." in parts:
        raise ContractError(where, f"expected an absolute path without empty, '.' or '..' parts, found {value!r}")
    return value
