"""Secret values as files of mode 0600: one of the tenant, or one that all tenants share.

`<home>/secrets/NAME` is the shared value; values in the tenant's own directory override it. A file that other users can
read is refused, not used with a warning: they may have read it already.

Secret managers give links: sops-nix and agenix keep the files in a directory below /run. A link is followed if it ends
there, and if nobody but root and this user can change any directory on the way to the file.
"""

import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex, token_urlsafe

from claw_runtime.errors import DiskFull, InvalidSpec
from claw_runtime.logs import Secret
from claw_runtime.tenancy import Layout, TenantId

MAX_BYTES = 64 * 1024
_MANAGERS = ("secrets", "secrets.d", "agenix", "agenix.d")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class SecretFiles:
    """Reads and makes secret values below a `Layout`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def shared(self) -> Path:
        """Directory of values for all tenants that do not override them."""
        return self._layout.home / "secrets"

    def read(self, tenant: TenantId, names: Iterable[str]) -> dict[str, Secret]:
        """The values that exist, by name; a name without a file is left out.

        Raises:
            InvalidSpec: A file is readable by others, belongs to somebody else, is a link out of `link_roots`, is not
                UTF-8 text, holds a NUL, is empty, or is larger than 64 KiB.
        """
        values: dict[str, Secret] = {}
        for name in names:
            _check_name(name)
            for directory in (self._layout.secrets(tenant), self.shared):
                if (text := read_text(directory / name)) is not None:
                    values[name] = Secret(text)
                    break
        return values

    def all(self, tenant: TenantId) -> dict[str, Secret]:
        """Every value of the tenant, or of all tenants, by name. Raises as `read`."""
        found = [*self.shared.glob("*"), *self._layout.secrets(tenant).glob("*")]
        return self.read(tenant, sorted({path.name for path in found if _NAME.fullmatch(path.name)}))

    def generate(self, tenant: TenantId, name: str) -> tuple[Secret, Path]:
        """The tenant's value of that name and its file; if missing, it is made of 32 random bytes, URL-safe.

        Raises:
            InvalidSpec: The file exists and is refused, as for `read`.
            DiskFull: There is no room for it.
        """
        _check_name(name)
        path = self._layout.secrets(tenant) / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (text := read_text(path)) is None:
            _create(path, token_urlsafe(32), self._layout.scratch)
            text = read_text(path)
        if text is None:
            raise InvalidSpec(
                f"{path} was removed while it was read", hint="make sure that nothing else removes a tenant's secrets"
            )
        return Secret(text), path


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidSpec(
            f"not a secret's name: {name[:60]!r}",
            why="letters, digits and '_' only",
            hint="use a name from the allowlist",
        )


def _create(path: Path, text: str, scratch: Path) -> None:
    """Write whole, then link: another process sees all of it or nothing, and the first of two writers wins.

    The draft is in a directory that the next start empties, so a kill leaves no partial secret.
    """
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = scratch / f"{path.name}.{token_hex(8)}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  (a descriptor, not a path)
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room to write {path}", why=error.strerror or "", hint="free some space, then retry"
            ) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def read_text(path: Path) -> str | None:
    """The text without line ends at its end; None when there is no such file. Raises `InvalidSpec`."""
    try:
        # O_NONBLOCK: a FIFO in this place must not block the daemon.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise _refused(path, error.strerror or str(error)) from error
        descriptor = _open_linked(path)
    try:
        _check_safe(path, os.fstat(descriptor))
        data = os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    return _text(path, data)


def link_roots() -> tuple[Path, ...]:
    """Directories of secret managers, to whose files a secret may be a link."""
    places = [Path("/run")]
    if (own := os.environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        places.append(Path(own))
    return tuple(place / name for place in places for name in _MANAGERS)


def _open_linked(path: Path) -> int:
    """Open the file that a link leads to. Raises `InvalidSpec` unless nobody else can have chosen it."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise _refused(path, "it is a symbolic link that leads to no file") from error
    if not any(target.is_relative_to(root) for root in link_roots()):
        raise _refused(path, f"it is a symbolic link to {target}, outside the directories of secret managers")
    for parent in target.parents:
        status = parent.lstat()
        if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX):
            raise _refused(path, f"it is a symbolic link into {parent}, which other users can change")
    try:
        return os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, f"it is a symbolic link to {target}: {error.strerror}") from error


def _refused(path: Path, why: str) -> InvalidSpec:
    managers = ", ".join(str(root) for root in link_roots()[: len(_MANAGERS)])
    return InvalidSpec(
        f"secret refused: {path}",
        why=why,
        hint=f"replace it with a regular file that you own, mode 0600, or with a link to one below {managers}",
    )


def _check_safe(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        why, hint = "it is not a plain file", f"replace {path} by a file of mode 0600"
    elif mode & 0o077:
        why, hint = (
            f"others can read or change it (mode {mode:04o})",
            f"chmod 0600 {path}, and rotate the secret if it may have leaked",
        )
    elif status.st_uid != os.geteuid():
        why, hint = f"it belongs to user {status.st_uid}", f"chown it to user {os.geteuid()}, who runs claw"
    else:
        return
    raise InvalidSpec(f"secret refused: {path}", why=why, hint=hint)


def _text(path: Path, data: bytes) -> str:
    try:
        # What editors and the tools of other systems add. In a header of HTTP it would fail far from this file.
        text = data.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    else:
        if len(data) > MAX_BYTES:
            why = f"it is larger than {MAX_BYTES // 1024} KiB"
        elif "\0" in text:
            why = "it contains a NUL character"
        elif not text:
            why = "it is empty"
        else:
            return text
    raise InvalidSpec(f"secret refused: {path}", why=why, hint="write the value to it as text, or remove the file")
