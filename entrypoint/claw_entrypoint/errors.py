"""The one way in which seeding fails; it imports nothing, since every module of a PID 1 is paid for at each start."""


class SeedError(Exception):
    """The workload cannot be given a configuration that is whole, so it is not started.

    Args:
        brief: What happened and where, one line, never with a secret in it.
        hint: What the person can do about it.
    """

    exit_code = 78  # EX_CONFIG of sysexits.h, which the gateway itself uses for a configuration it refuses

    def __init__(self, brief: str, hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.hint = hint


class ContractError(SeedError):
    """The contract is not valid at one place.

    Args:
        where: JSON pointer of the place, empty for the document itself.
        what: What is wrong there.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            f"contract {where or '/'}: {what}", "mend images/<name>/contract.json and build the image again"
        )
        self.where = where
        self.what = what
