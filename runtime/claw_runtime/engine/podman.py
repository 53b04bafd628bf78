"""Rootless Podman as `ports.Engine`: the only module that knows podman-py and its API's quirks.

options.py hardens containers. Figures and quirks in comments were measured on Podman 4.3.1 with
crun 1.8.1 and podman-py 5.8.0.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, quote_plus, urlencode

import structlog
from podman import PodmanClient
from podman.api import prepare_body
from podman.errors import APIError, DockerException, ImageNotFound, NotFound, NotFoundError, StreamParseError

from claw_runtime.engine import facts, init, mapping, options, seen, usage
from claw_runtime.engine.executing import Execution, dismiss
from claw_runtime.engine.lines import LogLines
from claw_runtime.engine.profiles import ProfileFiles
from claw_runtime.engine.refusals import (
    image_missing,
    inherited,
    meets_an_end,
    refusal,
    refuse_what_cannot_be_enforced,
    refuse_what_inherits,
    refuses_state,
    wrong_runtime,
)
from claw_runtime.engine.service import PodmanService
from claw_runtime.engine.unit import PodmanUnit
from claw_runtime.engine.wire import Call
from claw_runtime.errors import EngineFailed, EngineUnavailable, NotClaimed
from claw_runtime.ports import (
    LIVE,
    PAUSE_SECONDS,
    Container,
    ContainerSpec,
    ContainerState,
    EngineInfo,
    ExecResult,
    Image,
    Lines,
    Usage,
)

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.02
_DYING_SECONDS = 0.5
_ENDING_SECONDS = (0.005, 0.02, 0.1, 0.5)  # conmon reports the end within some milliseconds, unless the host is busy
_MAPPING_SECONDS = 1800.0  # the first container of an image copies all of its layers
_MAPPING_LABEL = "io.claw.mapping"


class PodmanEngine:
    """Containers and images of this user's Podman, through a separate Podman service.

    Args:
        socket: Where that service listens (`Layout.engine_socket`).
        cgroup_parent: Parent of every container's cgroup; None on ordinary hosts (see host/README.md).
        timeout: Seconds that one answer may take.
        restart: Set if that service is a unit of a service manager: restarts the unit. None: a child of this process.
    """

    def __init__(
        self,
        socket: Path,
        *,
        cgroup_parent: str | None = None,
        timeout: float = 60.0,
        restart: Callable[[], None] | None = None,
    ) -> None:
        self._service = PodmanService(socket) if restart is None else PodmanUnit(socket, restart)
        self._profiles = ProfileFiles(socket.with_name("seccomp"))
        self._cgroup_parent = cgroup_parent
        self._timeout = timeout
        self._local = threading.local()
        self._facts: tuple[EngineInfo, str] | None = None
        self._asked = 0
        self._creators: dict[str, PodmanService] = {}
        self._starting = threading.Lock()
        self._lingering: set[str] = set()
        self._dismissing = threading.Lock()
        self._creating = threading.Lock()
        self._mapped: set[str] = set()
        self._mapping = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the service, unless it is a unit. Containers keep running; a later call starts the service again."""
        self._local.mine = None
        for service in (*self._creators.values(), self._service):
            service.close()

    def supervise(self) -> None:
        for service in (self._service, *tuple(self._creators.values())):
            if service.supervise():
                log.warning("podman's service did not answer and was replaced", socket=str(service.path))

    def ping(self) -> None:
        self._service.ensure()
        if not self._service.answers():
            raise EngineUnavailable(
                "Podman's service does not answer",
                why=f"nothing came from {self._service.path}",
                hint="the daemon replaces it within seconds; claw-runtime doctor says more",
            )

    # --- the host -------------------------------------------------------------------------------------------------

    def info(self, *, fresh: bool = True) -> EngineInfo:
        """Podman's facts about this host. Raises `StorageUnusable` for the vfs driver; `rootless` is only reported."""
        return self._ask()[0] if fresh else self._known()[0]

    def _known(self) -> tuple[EngineInfo, str]:
        """The last answer, unless Podman was restarted since, perhaps with another configuration."""
        if self._facts is None or self._asked != self._service.ensure():
            return self._ask()
        return self._facts

    def _ask(self) -> tuple[EngineInfo, str]:
        """The facts, and the log driver that containers get by default."""
        generation = self._service.ensure()
        with _mapping_errors("read", "podman info"):
            answer = self._client().info()
            info = facts.read(answer)
        self._facts = known = info, str(answer["host"].get("logDriver", ""))
        self._asked = generation
        return known

    # --- images ---------------------------------------------------------------------------------------------------

    def image(self, reference: str) -> Image:
        with _mapping_errors("inspect", reference):
            answer = self._get(f"/images/{quote_plus(reference)}/json")
            answer.raise_for_status(not_found=ImageNotFound)
            attrs = answer.json()
        environment = (attrs.get("Config") or {}).get("Env") or ()
        return Image(
            id=str(attrs["Id"]).removeprefix("sha256:"),
            digest=str(attrs["Digest"]),
            size=int(attrs["Size"]),
            labels=dict(attrs.get("Labels") or {}),
            names=tuple(attrs.get("RepoTags") or ()),
            inherits=inherited(environment),
            home=next((text.removeprefix("HOME=") for text in environment if text.startswith("HOME=")), ""),
        )

    def map_image(self, reference: str) -> None:
        image = self.image(reference)
        with self._mapping:
            if image.id in self._mapped:
                return
            refuse_what_inherits(reference, image.inherits)
            for left_over in self.list({_MAPPING_LABEL: "1"}):
                self.remove(left_over.id)
            profile = str(self._profiles.path(None))
            # Creating copies the layers; there is nothing to run, so any image will do, even one without a shell. It
            # takes long, and only one container is created at a time (see `create`): so a service of its own does it.
            service = PodmanService(self._service.path.with_name(f"{self._service.path.stem}-mapping.sock"))
            try:
                service.ensure()
                with (
                    _mapping_errors("map", reference),
                    PodmanClient(base_url=service.url, timeout=_MAPPING_SECONDS) as client,
                ):
                    made = client.containers.create(
                        image.id,
                        ["none"],
                        labels={_MAPPING_LABEL: "1"},
                        network_mode="none",
                        seccomp_profile_path=profile,
                        **mapping.options(),
                    )
            finally:
                service.close()
            self.remove(str(made.id))
            self._mapped.add(image.id)

    # --- containers -----------------------------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> str:
        info, log_driver = self._known()
        refuse_what_cannot_be_enforced(spec, info)
        profile = self._profiles.path(spec.seccomp)
        wanted = options.of(
            spec,
            profile=profile,
            cgroup_parent=self._cgroup_parent,
            log_driver=log_driver,
            helper=info.network,
        )
        if spec.image not in self._mapped:  # a cached id costs nothing; otherwise only this caller waits
            self.map_image(spec.image)
        # One at a time: for a mapping Podman reads /etc/subuid by libsubid, which is not made for threads. Of twenty
        # creates at once one in ten tries ended the service by SIGSEGV, or found "no subuid ranges" (4.3.1).
        with (
            self._creating,
            _mapping_errors("create", spec.name, image=spec.image),
            self._creator(spec.runtime or info.runtime) as client,
        ):
            made = _create(client, spec, wanted)
        if spec.runtime is not None and (got := str(self._attributes(made)["OCIRuntime"])) != spec.runtime:
            self.remove(made)
            raise wrong_runtime(spec.runtime, f"Podman made {spec.name} for {got} instead")
        return made

    @contextmanager
    def _creator(self, runtime: str) -> Iterator[Any]:
        """Who creates it: Podman's API has a field for the OCI runtime and does not read it (up to 5.8), but a service
        has one of its own. A container remembers its runtime."""
        if runtime == self._known()[0].runtime:
            yield self._client(_MAPPING_SECONDS)
            return
        with self._starting:
            service = self._creators.get(runtime)
            try:
                if service is None:
                    path = self._service.path.with_name(f"{self._service.path.stem}-{runtime}.sock")
                    service = PodmanService(path, flags=("--runtime", runtime))
                service.ensure()
                self._creators[runtime] = service
            except (EngineUnavailable, ValueError) as error:
                raise wrong_runtime(runtime, getattr(error, "why", str(error))) from error
        with PodmanClient(base_url=service.url, timeout=_MAPPING_SECONDS) as client:
            yield client

    def initialize(self, container: str) -> None:
        self._post(container, "init", "initialise")

    def start(self, container: str) -> None:
        self._post(container, "start", "start", twice=True)

    def stop(self, container: str, timeout: int) -> None:
        try:
            self._post(container, "stop", "stop", params={"timeout": timeout}, timeout=timeout + 30, twice=True)
        except NotClaimed:
            return
        except EngineFailed:  # Podman does not stop paused containers
            if self._state(container) != "paused":
                raise
            self._stop_paused(container, timeout)

    def _stop_paused(self, container: str, timeout: int) -> None:
        """Stop a paused container with one signal: a second one, as of `stop`, would make many programs end at once."""
        try:
            if not init.terminate_program(self._attributes(container)):
                self._post(container, "kill", "stop", params={"signal": "TERM"})
            self._post(container, "unpause", "stop")
            if not self._ended(container, timeout):
                self._post(container, "kill", "stop", params={"signal": "KILL"})
                self._ended(container, 30)
        except (NotClaimed, EngineFailed):
            if self._state(container) not in ("exited", None):
                raise

    def _ended(self, container: str, seconds: float) -> bool:
        """Whether the container ends within these seconds."""
        deadline = time.monotonic() + seconds
        while self._state(container) not in ("exited", None):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def pause(self, container: str) -> None:
        self._turn(container, "pause", "paused")

    def unpause(self, container: str) -> None:
        self._turn(container, "unpause", "running")

    def _turn(self, container: str, verb: str, into: ContainerState) -> None:
        try:
            self._post(container, verb, verb)
        except EngineFailed:
            if self._state(container) != into:
                raise

    def _state(self, container: str) -> ContainerState | None:
        found = self.inspect(container)
        return found.state if found else None

    def remove(self, container: str) -> None:
        api = self._client().api
        with _mapping_errors("remove", container):
            # Killing first is quicker than a forced removal, which waits for a stop (61 against 122 ms). A container
            # that does not run answers 500 here, and is removed all the same.
            api.post(f"{_path(container)}/kill", params={"signal": "KILL"})
            answer = api.delete(_path(container), params={"force": True, "timeout": 0, "v": True})
            if answer.status_code != 404:
                answer.raise_for_status()

    def inspect(self, container: str) -> Container | None:
        try:
            return seen.inspected(self._attributes(container))
        except NotClaimed:
            return None

    def _attributes(self, container: str) -> dict[str, Any]:
        """Podman's whole inspection. Raises `NotClaimed` when it is gone."""
        with _mapping_errors("inspect", container):
            answer = self._get(f"{_path(container)}/json")
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        return found

    def is_watched(self, container: Container) -> bool | None:
        watched = seen.watched(container.pid) if container.pid else None
        return False if watched and container.host_port and not seen.published(container.host_port) else watched

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        # podman-py's own `list` turns a list of labels into text, which then matches nothing.
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        with _mapping_errors("list", "containers"):
            answer = self._get("/containers/json", {"all": True, "filters": filters})
            answer.raise_for_status()
            entries = answer.json()
        return [seen.listed(entry) for entry in entries]

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        deadline = time.monotonic() + PAUSE_SECONDS
        while True:
            execution = Execution(self._listening(), container, _path(container), argv)
            try:
                return execution.run(environment or {}, timeout)
            except EngineFailed as error:
                # Podman refuses before it starts anything: a second attempt cannot run the command twice.
                if not refuses_state(error) or self._state(container) not in LIVE or time.monotonic() >= deadline:
                    raise
            finally:
                with self._dismissing:
                    self._lingering |= {execution.session} - {""}
                    self._lingering -= dismiss(self._lingering)
            time.sleep(_LOOK_SECONDS)

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        lines = self.lines(container, tail=tail)
        try:
            return b"".join(line + b"\n" for line in lines)
        finally:
            lines.close()

    def lines(
        self, container: str, *, tail: int | None = None, since: float | None = None, follow: bool = False
    ) -> Lines:
        # Podman waits forever for the log of a container that has not begun, also when it begins (4.3.1).
        begun = follow and self._state(container) not in ("created", "initialized")
        asked = {"tail": tail, "since": None if since is None else f"{since:.6f}"}
        query = {name: value for name, value in asked.items() if value is not None}
        query |= {"stdout": "true", "stderr": "true", "follow": str(begun).lower()}
        call = Call(self._listening(), "read the log of", container, timeout=None if begun else self._timeout)
        return LogLines(call.send("GET", f"{_path(container)}/logs?{urlencode(query)}"))

    def stats(self, labels: Mapping[str, str]) -> Sequence[Usage]:
        return [use for found in self.list(labels) if found.pid and (use := usage.of(found))]

    # --- calls ----------------------------------------------------------------------------------------------------

    def _client(self, timeout: float | None = None) -> Any:
        """This thread's client: podman-py's is a requests session, which is not made for threads."""
        generation = self._service.ensure()
        mine: _Client | None = getattr(self._local, "mine", None)
        if mine is None or mine.generation != generation:
            mine = self._local.mine = _Client(self._service.url, self._timeout, generation)
        mine.client.api.timeout = timeout or self._timeout
        return mine.client

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer to a question, which is put again while Podman meets the end of a program at that moment."""

        def ask() -> Any:
            return self._twice(lambda: self._client().api.get(path, params=params))

        answer = ask()
        for seconds in _ENDING_SECONDS:
            if answer.status_code != 500 or not meets_an_end(answer.text):  # the text of a long list is not decoded
                break
            time.sleep(seconds)
            answer = ask()
        return answer

    def _twice(self, ask: Callable[[], Any]) -> Any:
        """The answer to a harmless request, which is retried once if Podman's service ended meanwhile."""
        generation = self._service.ensure()
        try:
            return ask()
        except OSError:
            if not self._started_again(generation):
                raise
            return ask()

    def _listening(self) -> Path:
        """The socket of a service that accepts connections, for a call that must not be made twice."""
        generation = self._service.ensure()
        if not self._service.listens():
            self._started_again(generation)
        return self._service.path

    def _started_again(self, generation: int) -> bool:
        """Whether that service ended and was started again; one that is ending still counts as alive for a moment."""
        deadline = time.monotonic() + _DYING_SECONDS
        while self._service.ensure() == generation:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def _post(
        self,
        container: str,
        verb: str,
        operation: str,
        *,
        params: Mapping[str, int | str] | None = None,
        body: object = None,
        timeout: float | None = None,
        twice: bool = False,
    ) -> Any:
        """POST to a container; 304 (already done) is no error. `twice` is as in `_twice`."""

        def ask() -> Any:
            return self._client().api.post(f"{_path(container)}/{verb}", params=params, data=data, timeout=timeout)

        with _mapping_errors(operation, container):
            data = None if body is None else json.dumps(body)
            answer = self._twice(ask) if twice else ask()
            answer.raise_for_status()
        return answer


class _Client:
    """A thread's client, closed when the thread ends or Podman was started again."""

    def __init__(self, url: str, timeout: float, generation: int) -> None:
        self.client = PodmanClient(base_url=url, timeout=timeout)
        self.generation = generation

    def __del__(self) -> None:
        with suppress(Exception):  # modules that it needs may be gone when the interpreter ends
            self.client.close()  # type: ignore[no-untyped-call]


def _create(client: Any, spec: ContainerSpec, wanted: Mapping[str, Any]) -> str:
    """As podman-py's `create`, which knows no `passwd_entry` and asks for the container once more; its id."""
    payload = client.containers._render_payload(  # noqa: SLF001 - the pinned podman-py; a contract test notices a change
        {"image": spec.image, "command": list(spec.command), **wanted}
    )
    if entry := mapping.passwd_entry(spec.home):
        payload["passwd_entry"] = entry
    answer = client.api.post(
        "/containers/create", headers={"content-type": "application/json"}, data=prepare_body(payload)
    )
    answer.raise_for_status(not_found=ImageNotFound)
    return str(answer.json()["Id"])


def _path(container: str) -> str:
    return f"/containers/{quote(container, safe='')}"


@contextmanager
def _mapping_errors(operation: str, subject: str, *, image: str = "") -> Iterator[None]:
    """Translate exceptions of podman-py, requests and the socket into errors of errors.py."""
    try:
        yield
    except ImageNotFound as error:
        raise image_missing(image or subject) from error
    except (OSError, HTTPException, DockerException, StreamParseError) as error:
        message = getattr(error, "explanation", None) or str(error) or type(error).__name__
        raise refusal(operation, subject, _status(error), message, image=image) from error


def _status(error: Exception) -> int | None:
    """HTTP status of an answer; None when there was none. Errors of podman-py's own count as a refusal."""
    if isinstance(error, APIError) and error.status_code is not None:
        return int(error.status_code)
    if isinstance(error, NotFound | NotFoundError):
        return 404
    return None if isinstance(error, OSError) else 500
