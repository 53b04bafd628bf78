"""Rootless Podman as `ports.Engine`: the only module that knows podman-py and its API's quirks.

Hardening is here and nowhere else, and is no option: keep-id with the host user's own uid and gid, no capability, no
new privileges, the default seccomp profile, a namespace of its own for everything, ports on 127.0.0.1 only. Figures and
quirks in comments were measured on Podman 4.3.1 with crun 1.8.1 and podman-py 5.8.0.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from podman import PodmanClient
from podman.api.output_utils import demux_output
from podman.errors import APIError, DockerException, ImageNotFound, NotFound, NotFoundError, StreamParseError

from claw_runtime.engine.refusals import image_missing, refusal, refuse_what_cannot_be_enforced
from claw_runtime.engine.service import PodmanService
from claw_runtime.errors import EngineFailed, NotClaimed, StorageUnusable
from claw_runtime.ports import (
    Bind,
    Container,
    ContainerSpec,
    ContainerState,
    EngineInfo,
    ExecResult,
    Image,
)

_STATES: Mapping[str, ContainerState] = {
    "created": "created",
    "initialized": "initialized",
    "running": "running",
    "paused": "paused",
    "stopped": "exited",
    "exited": "exited",
}
_CPU_PERIOD = 100_000  # microseconds, the kernel's default
_LOG_BYTES = 10 << 20
_MAPPING_SECONDS = 1800.0  # the first keep-id container of an image copies all of its layers
_EXEC_SECONDS = 600.0
_MAPPING_LABEL = "io.claw.mapping"


class PodmanEngine:
    """Containers and images of this user's Podman, through a service of our own.

    Args:
        socket: Where that service listens (`Layout.engine_socket`).
        cgroup_parent: Parent of every container's cgroup; None on ordinary hosts (see host/README.md).
        timeout: Seconds that one answer may take.
    """

    def __init__(self, socket: Path, *, cgroup_parent: str | None = None, timeout: float = 60.0) -> None:
        self._service = PodmanService(socket)
        self._cgroup_parent = cgroup_parent
        self._timeout = timeout
        self._local = threading.local()
        self._facts: tuple[EngineInfo, str] | None = None
        self._mapped: set[str] = set()
        self._mapping = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the service. Containers go on; a later call starts the service again."""
        client = getattr(self._local, "client", None)
        if client is not None:
            client.close()
        self._service.close()

    # --- the host -------------------------------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """Ask Podman anew. Raises `StorageUnusable` for the vfs driver; `rootless` is only reported."""
        return self._ask()[0]

    def _ask(self) -> tuple[EngineInfo, str]:
        """The facts, and the log driver that containers get by default."""
        with _mapping_errors("read", "podman info"):
            answer = self._client().info()
            host, store = answer["host"], answer["store"]
            info = EngineInfo(
                version=str(answer["version"]["Version"]),
                rootless=bool(host["security"]["rootless"]),
                storage_driver=str(store["graphDriverName"]),
                cgroup_version=str(host["cgroupVersion"]),
                cgroup_controllers=tuple(host["cgroupControllers"] or ()),
                runtime=str(host["ociRuntime"]["name"]),
            )
        if info.storage_driver == "vfs":
            path = store.get("configFile", "~/.config/containers/storage.conf")
            raise StorageUnusable(
                "Podman stores images with the vfs driver",
                why="it copies the whole image for every container: tens of seconds and its full size each",
                hint=f"write '[storage]' and 'driver = \"overlay\"' to {path}, then run `podman system reset`: it "
                "forgets all images and containers of this user",
                path=path,
            )
        self._facts = info, str(host.get("logDriver", ""))
        return self._facts

    # --- images ---------------------------------------------------------------------------------------------------

    def image(self, reference: str) -> Image:
        with _mapping_errors("inspect", reference):
            attrs = self._client().images.get(reference).attrs
        return Image(
            id=str(attrs["Id"]).removeprefix("sha256:"),
            digest=str(attrs["Digest"]),
            size=int(attrs["Size"]),
            labels=dict(attrs.get("Labels") or {}),
            names=tuple(attrs.get("RepoTags") or ()),
        )

    def map_image(self, reference: str) -> None:
        image = self.image(reference)
        with self._mapping:
            if image.id in self._mapped:
                return
            for left_over in self.list({_MAPPING_LABEL: "1"}):
                self.remove(left_over.id)
            # Creating copies the layers; there is nothing to run, so any image will do, even one without a shell.
            with _mapping_errors("map", reference):
                made = self._client(_MAPPING_SECONDS).containers.create(
                    image.id, ["none"], labels={_MAPPING_LABEL: "1"}, network_mode="none", **self._identity()
                )
            self.remove(str(made.id))
            self._mapped.add(image.id)

    # --- containers -----------------------------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> str:
        info, log_driver = self._facts or self._ask()
        refuse_what_cannot_be_enforced(spec, info)
        options = self._identity() | _hardening(spec) | _limits(spec)
        if self._cgroup_parent:
            options["cgroup_parent"] = self._cgroup_parent
        if log_driver != "journald":  # the journal bounds itself, a file does not
            options["log_config"] = {"Type": "k8s-file", "Config": {"size": _LOG_BYTES}}
        with _mapping_errors("create", spec.name, image=spec.image):
            made = self._client(_MAPPING_SECONDS).containers.create(
                spec.image,
                list(spec.command),
                name=spec.name,
                environment=dict(spec.environment),
                labels=dict(spec.labels),
                stop_timeout=spec.stop_timeout,
                **options,
            )
        return str(made.id)

    def initialize(self, container: str) -> None:
        self._post(container, "init", "initialise")

    def start(self, container: str) -> None:
        self._post(container, "start", "start")

    def stop(self, container: str, timeout: int) -> int | None:
        try:
            self._post(container, "stop", "stop", params={"timeout": timeout}, timeout=timeout + 30)
        except NotClaimed:
            return None
        seen = self.inspect(container)
        return seen.exit_code if seen else None

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
        with _mapping_errors("inspect", container):
            answer = self._client().api.get(f"{_path(container)}/json")
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            attrs = answer.json()
        state = _STATES.get(attrs["State"]["Status"], "other")
        published = [port for ports in (attrs["NetworkSettings"]["Ports"] or {}).values() for port in ports or ()]
        return Container(
            id=str(attrs["Id"]),
            name=str(attrs["Name"]),
            state=state,
            image_id=str(attrs["Image"]).removeprefix("sha256:"),
            labels=dict(attrs["Config"]["Labels"] or {}),
            pid=int(attrs["State"]["Pid"]),
            exit_code=int(attrs["State"]["ExitCode"]) if state == "exited" else None,
            host_port=int(published[0]["HostPort"]) if published else None,
        )

    def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        # podman-py's own `list` turns a list of labels into text, which then matches nothing.
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        with _mapping_errors("list", "containers"):
            answer = self._client().api.get("/containers/json", params={"all": True, "filters": filters})
            answer.raise_for_status()
            entries = answer.json()
        return [_listed(entry) for entry in entries]

    def execute(
        self, container: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> ExecResult:
        pairs = [f"{name}={value}" for name, value in (environment or {}).items()]
        request = {"AttachStdout": True, "AttachStderr": True, "Cmd": [*argv], "Env": pairs}
        made = self._post(container, "exec", f"run {argv[0]!r} in", body=request)
        session = f"/exec/{made.json()['Id']}"
        api = self._client().api
        with _mapping_errors(f"run {argv[0]!r} in", container):
            output = api.post(f"{session}/start", data='{"Detach": false, "Tty": false}', timeout=_EXEC_SECONDS)
            output.raise_for_status()
            ended = api.get(f"{session}/json")
            ended.raise_for_status()
            stdout, stderr = demux_output(output.content)  # type: ignore[no-untyped-call]
            return ExecResult(exit_code=int(ended.json()["ExitCode"]), stdout=stdout or b"", stderr=stderr or b"")

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        params = {"stdout": True, "stderr": True} | ({} if tail is None else {"tail": tail})
        with _mapping_errors("read the log of", container):
            answer = self._client().api.get(f"{_path(container)}/logs", params=params)
            answer.raise_for_status()
            return b"".join(_frames(answer.content))

    # --- calls ----------------------------------------------------------------------------------------------------

    def _client(self, timeout: float | None = None) -> Any:
        """This thread's client: podman-py's is a requests session, which is not made for threads."""
        generation = self._service.ensure()
        if getattr(self._local, "generation", None) != generation:
            self._local.client = PodmanClient(base_url=self._service.url, timeout=self._timeout)
            self._local.generation = generation
        self._local.client.api.timeout = timeout or self._timeout
        return self._local.client

    def _post(
        self,
        container: str,
        verb: str,
        operation: str,
        *,
        params: Mapping[str, int] | None = None,
        body: object = None,
        timeout: float | None = None,
    ) -> Any:
        """POST to a container; 304 (it is so already) is fine."""
        with _mapping_errors(operation, container):
            data = None if body is None else json.dumps(body)
            api = self._client().api
            answer = api.post(f"{_path(container)}/{verb}", params=params, data=data, timeout=timeout)
            answer.raise_for_status()
        return answer

    def _identity(self) -> dict[str, Any]:
        """Who the container's processes are: one mapping for all containers, since each other one copies the image."""
        return {"userns_mode": "keep-id", "user": f"{os.getuid()}:{os.getgid()}"}


def _hardening(spec: ContainerSpec) -> dict[str, Any]:
    """Options of podman-py's `create`. Raises `EngineFailed` for mounts that it would misread."""
    options: dict[str, Any] = {
        "cap_drop": ["all"],
        "no_new_privileges": True,
        "read_only": spec.read_only,
        "systemd": "false",  # else an image whose command looks like an init gets more writable mounts
        "image_volume_mode": "ignore",  # an image's VOLUME would be one more writable place that nobody asked for
        "volumes": _volumes(spec.binds),
        # `tmpfs=` raises TypeError; Podman adds nosuid and nodev itself, and copies what the image has there.
        "mounts": [{"type": "tmpfs", "source": "tmpfs", "target": path, "mode": "1777"} for path in spec.tmpfs],
        "network_mode": "none",
    }
    if spec.network == "private":
        options["network_mode"] = "slirp4netns"
        options["network_options"] = {"slirp4netns": ["allow_host_loopback=false"]}
        if spec.port is not None:
            options["ports"] = {f"{spec.port}/tcp": ("127.0.0.1", 0)}
    return options


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    """Only what is asked for: without controllers even `unlimited` is refused."""
    options: dict[str, Any] = {}
    if spec.memory is not None:
        options |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    if spec.cpus is not None:
        options |= {"cpu_period": _CPU_PERIOD, "cpu_quota": int(spec.cpus * _CPU_PERIOD)}
    if spec.pids is not None:
        options["pids_limit"] = spec.pids
    return options


def _volumes(binds: Sequence[Bind]) -> dict[str, dict[str, Any]]:
    """podman-py keys binds by source, and takes a source that is not absolute for a named volume."""
    volumes: dict[str, dict[str, Any]] = {}
    for bind in binds:
        source = os.fspath(bind.source)
        if not bind.source.is_absolute() or source in volumes:
            raise EngineFailed(
                f"cannot mount {source} at {bind.target}",
                why="each bind needs an absolute source directory of its own",
                hint="give every mount a directory of its own",
            )
        options = ["nosuid", "nodev", "ro" if bind.read_only else "rw"]  # fresh: podman-py appends to it
        volumes[source] = {"bind": bind.target, "extended_mode": options}
    return volumes


def _listed(entry: Mapping[str, Any]) -> Container:
    state = _STATES.get(entry["State"], "other")
    ports = entry.get("Ports") or ()
    return Container(
        id=str(entry["Id"]),
        name=str(entry["Names"][0]),
        state=state,
        image_id=str(entry["ImageID"]).removeprefix("sha256:"),
        labels=dict(entry["Labels"] or {}),
        pid=int(entry["Pid"]),
        exit_code=int(entry["ExitCode"]) if state == "exited" else None,
        host_port=int(ports[0]["host_port"]) if ports else None,
    )


def _frames(content: bytes) -> Iterator[bytes]:
    """The payloads of a multiplexed stream (8-byte headers), both streams in the order of their arrival."""
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "big")
        yield content[at + 8 : at + 8 + size]
        at += 8 + size


def _path(container: str) -> str:
    return f"/containers/{quote(container, safe='')}"


@contextmanager
def _mapping_errors(operation: str, subject: str, *, image: str = "") -> Iterator[None]:
    """Nothing of podman-py, requests or the socket leaves this module."""
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
