"""Work that several threads share."""

import threading
from collections.abc import Callable


def together(workers: int, work: Callable[[], None]) -> None:
    """Do the same work in several threads, one of which is this one; the first error of any of them is raised.

    The threads do not keep the process from ending.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, name="fill", daemon=True) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    if workers > 0:
        guarded()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
