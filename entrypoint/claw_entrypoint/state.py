"""What a start prepares on the tenant's volumes: directories, plugin stubs, generated values, a swept tmp.

Nothing of the tenant's is deleted here, except below the contract's `sweep`, and lock files. A trap left by the
tenant (a symlink where a directory belongs) costs the tenant that directory and is reported; nobody else is touched
by it.
"""

import errno
import os

from claw_entrypoint.contract import Contract, Plugin, Value
from claw_entrypoint.document import dumps
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.places import aside, drop, empty, open_directory, read_file, write_file

_LOCKS = "/*.lock"
_DEEPEST = 16  # levels below a directory of the program's own
_PLANTED = (errno.ELOOP, errno.ENOTDIR)


def skeleton(contract: Contract, log: Log, prefix: str = "") -> None:
    """Make the directories that the image's environment points into, mode 0700 and umask.

    Raises:
        SeedError: A volume cannot be written (when strict).
    """
    refused: dict[str, str] = {}
    for path in contract.skeleton:
        try:
            os.close(open_directory(prefix, path, create=True))
        except OSError as error:
            if error.errno in _PLANTED:
                log.warning("skeleton.not_a_directory", path=path, hint="remove what is there; links are not followed")
            else:
                refused.setdefault(contract.volume_of(path), f"{path}: {error.strerror}")
    if refused:
        who = f"uid {os.geteuid()}"
        hint = f"mount volumes that {who} can write, or run with --userns=keep-id --user $(id -u):$(id -g)"
        log.defect(SeedError(f"{who} cannot make directories: {'; '.join(refused.values())}", hint))


def sweep(contract: Contract, log: Log, prefix: str = "") -> None:
    """Delete what a gateway that was killed has left behind; only for a start that becomes the gateway."""
    for path in contract.sweep:
        try:
            directory = open_directory(prefix, path)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("sweep.skipped", path=path, reason=error.strerror)
            continue
        try:
            kept = empty(directory)
        except OSError as error:
            kept = [str(error.strerror)]
        finally:
            os.close(directory)
        if kept:
            log.warning("sweep.incomplete", path=path, kept=len(kept), first=kept[0])
    _sweep_locks(contract, log, prefix)


def _sweep_locks(contract: Contract, log: Log, prefix: str) -> None:
    """Delete the program's own lock files: those that the contract never stores, in directories that it names.

    A lock names a process, whose number is another process's in the next container; the tree may be the last one's.
    """
    root = next((path for path, volume in contract.volumes.items() if volume.kind == "state"), "")
    for pattern in contract.sync_exclude:
        if not (pattern.startswith("/") and pattern.endswith(_LOCKS)):
            continue
        place = pattern.removesuffix(_LOCKS)
        deep = place.endswith("/**")
        place = root + place.removesuffix("/**")
        if "*" in place:
            continue
        try:
            directory = open_directory(prefix, place)
        except OSError:  # a new tenant has none yet; a link leads nowhere
            continue
        try:
            drop(directory, ".lock", _DEEPEST if deep else 0)
        except OSError as error:
            log.warning("sweep.incomplete", path=place, kept=1, first=str(error.strerror))
        finally:
            os.close(directory)


def plugins(contract: Contract, log: Log, prefix: str = "") -> None:
    """Point each managed project at the plugin of this image; the state may come from another one.

    OpenClaw trusts a plugin of its load path only when an install record resolves to the same directory, and it
    recovers that record from these two entries. Without them the matrix channel exits (`openKeyedStore`).
    """
    for plugin in contract.plugins:
        try:
            project = open_directory(prefix, contract.plugin_projects, create=True)
            try:
                _stub(plugin, contract.version, project, log)
            finally:
                os.close(project)
        except OSError as error:
            log.warning("plugin.unavailable", plugin=plugin.id, reason=error.strerror, path=contract.plugin_projects)


def _stub(plugin: Plugin, version: str, projects: int, log: Log) -> None:
    """`<project>/package.json` and `<project>/node_modules/<package>`, each touched only when it is not right yet."""
    manifest = dumps({"private": True, "dependencies": {plugin.package: version}}).encode() + b"\n"
    *folders, name = f"{plugin.project}/node_modules/{plugin.package}".split("/")
    directory = os.dup(projects)
    try:
        for depth, folder in enumerate(folders):
            there = _own_directory(folder, directory, plugin, log)
            os.close(directory)
            directory = there
            if depth == 0 and _content("package.json", directory) != manifest:
                _move_aside_directory("package.json", directory, plugin, log)
                write_file("package.json", directory, manifest)
        _link(plugin.path, name, directory, plugin, log)
    finally:
        os.close(directory)


def _own_directory(name: str, directory: int, plugin: Plugin, log: Log) -> int:
    """Open or make a directory below the projects; a link or file in its place is the tenant's, and is moved away."""
    try:
        return open_child(name, directory)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=directory)
    except OSError as error:
        if error.errno not in _PLANTED:
            raise
        _move_aside(name, directory, plugin, log)
        os.mkdir(name, 0o700, dir_fd=directory)
    return open_child(name, directory)


def open_child(name: str, directory: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _content(name: str, directory: int) -> bytes | None:
    try:
        return read_file(name, directory=directory)
    except OSError:
        return None


def _link(target: str, name: str, directory: int, plugin: Plugin, log: Log) -> None:
    try:
        if os.readlink(name, dir_fd=directory) == target:
            return
    except FileNotFoundError:
        pass
    except OSError:
        _move_aside(name, directory, plugin, log)
    temporary = aside("new")
    os.symlink(target, temporary, dir_fd=directory)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _move_aside(name: str, directory: int, plugin: Plugin, log: Log) -> None:
    place = aside("replaced")
    os.rename(name, place, src_dir_fd=directory, dst_dir_fd=directory)
    log.warning("plugin.moved_aside", plugin=plugin.id, name=name, place=place)


def _move_aside_directory(name: str, directory: int, plugin: Plugin, log: Log) -> None:
    try:
        os.close(open_child(name, directory))
    except OSError:
        return
    _move_aside(name, directory, plugin, log)


def generated(value: Value, log: Log, prefix: str = "") -> str | None:
    """The value that an earlier start made, or a new one of 256 bits; its place is logged, it never is.

    Raises:
        SeedError: It can neither be read nor made (when strict), or something planted is in its place.
    """
    parent, _, name = value.file.rpartition("/")
    try:
        directory = open_directory(prefix, parent, create=True)
        try:
            text = _kept(name, directory)
            event = "value.kept" if text else "value.generated"
            if not text:
                text = os.urandom(32).hex()
                write_file(name, directory, text.encode() + b"\n")
        finally:
            os.close(directory)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        hint = f"remove {value.file} or make it a private file of uid {os.geteuid()}, or set {value.name} yourself"
        log.defect(SeedError(f"{value.name} was not given and {value.file} cannot be used: {reason}", hint))
        return None
    if "\0" in text:
        log.defect(SeedError(f"{value.name} in {value.file} holds a NUL character", "remove the file"))
        return None
    log.info(event, name=value.name, place=value.file)
    return text


def _kept(name: str, directory: int) -> str:
    try:
        return read_file(name, directory=directory).decode().removesuffix("\n")
    except FileNotFoundError:
        return ""
