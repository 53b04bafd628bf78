"""What an image promises, read from its `contract.json`: the single source of truth for every builder and reader.

The entrypoint reads it at each start, the runtime reads it before it makes a slot; both through `load`. Members that
only builders use (`node`, `tools`, `boot_tuning`) are carried in the document and not looked at here.
"""

from claw_entrypoint.document import loads
from claw_entrypoint.errors import ContractError
from claw_entrypoint.record import Record
from claw_entrypoint.section import Section, absolute

VERSION = 1
PLACE = "/etc/claw/contract.json"
NEEDS = ("required", "optional", "generated")
_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_REST = _FIRST | frozenset("0123456789")


def is_name(text: str) -> bool:
    """Whether `text` may name a value: `[A-Z_][A-Z0-9_]*`, the grammar of OpenClaw's own placeholders."""
    return text[:1] in _FIRST and _REST.issuperset(text) if text else False


class Exec(Record):
    """The gateway: `argv` begins with an absolute path, `environment` is set for it alone."""

    __slots__ = ("argv", "environment")
    argv: tuple[str, ...]
    environment: dict[str, str]


class Stop(Record):
    """How the gateway is asked to end: signal name, and seconds until it is killed."""

    __slots__ = ("signal", "timeout")
    signal: str
    timeout: int


class Probes(Record):
    """HTTP paths on the gateway port.

    `ready` may fail for the names in `ignore_failing`; `timeout` is in seconds; `bearer` names the value that the
    ready probe sends as its bearer token, or is empty.
    """

    __slots__ = ("bearer", "ignore_failing", "live", "ready", "timeout")
    bearer: str
    live: str
    ready: str
    ignore_failing: tuple[str, ...]
    timeout: int


class Volume(Record):
    """A place that is not part of the image. `kind`: ephemeral, state, logs or values; `mode`: octal text or empty."""

    __slots__ = ("kind", "mode")
    kind: str
    mode: str


class Template(Record):
    """The gateway's configuration: read from `source`, written to `target` at every start."""

    __slots__ = ("source", "target")
    source: str
    target: str


class Value(Record):
    """One name of the allowlist.

    `need`: `required`, `optional` or `generated`; `feature` is what a missing optional one turns off, or empty;
    `file` is where a generated one is kept, or empty; `default` stands in for a missing optional one, or is None.
    """

    __slots__ = ("default", "feature", "file", "name", "need", "secret")
    name: str
    need: str
    secret: bool
    feature: str
    file: str
    default: str | None


class Operation(Record):
    """A change to the rendered configuration: `op` is `replace` or `remove`, `path` the parts of a JSON pointer."""

    __slots__ = ("op", "path", "value")
    op: str
    path: tuple[str, ...]
    value: object


class Plugin(Record):
    """A plugin baked into the image at `path`, known to the gateway as `package` of the managed `project`."""

    __slots__ = ("id", "package", "path", "project")
    id: str
    package: str
    project: str
    path: str


class Prewarm(Record):
    """A program that waits in the gateway's place and becomes it: `argv` begins with an absolute path, `modules` is
    the list of what it may load ahead.
    """

    __slots__ = ("argv", "modules")
    argv: tuple[str, ...]
    modules: str


class Discovery(Record):
    """Extensions of the gateway that a workload may choose from: those below `source`, by name, in the value `value`.

    The chosen ones, those of `always`, and those of each feature that has a value, are named to the gateway in
    `variable`. Without the value it finds them all.
    """

    __slots__ = ("always", "features", "source", "value", "variable")
    value: str
    source: str
    variable: str
    always: tuple[str, ...]
    features: dict[str, tuple[str, ...]]


class Contract(Record):
    """A whole, checked contract.

    `plugin_projects` is the directory of the managed projects, empty without plugins; `prewarm` is None where no
    program can wait in the gateway's place, `discovery` where there is nothing to choose.
    """

    __slots__ = (
        "application",
        "capabilities",
        "discovery",
        "environment",
        "exec",
        "features",
        "image",
        "limits",
        "name",
        "plugin_projects",
        "plugins",
        "ports",
        "prewarm",
        "probes",
        "skeleton",
        "stop",
        "sweep",
        "sync_exclude",
        "sync_logins",
        "template",
        "values",
        "version",
        "volumes",
        "writable",
    )
    name: str
    image: str
    application: str
    version: str
    exec: Exec
    stop: Stop
    ports: dict[str, int]
    discovery: Discovery | None
    prewarm: Prewarm | None
    probes: Probes
    volumes: dict[str, Volume]
    skeleton: tuple[str, ...]
    sweep: tuple[str, ...]
    sync_exclude: tuple[str, ...]
    sync_logins: tuple[str, ...]
    environment: dict[str, str]
    template: Template
    values: dict[str, Value]
    features: dict[str, tuple[Operation, ...]]
    plugin_projects: str
    plugins: tuple[Plugin, ...]
    writable: tuple[str, ...]
    capabilities: dict[str, bool]
    limits: dict[str, object]

    def volume_of(self, path: str) -> str:
        """The volume that holds `path`, empty when it is a part of the image."""
        return max((root for root in self.volumes if path == root or path.startswith(root + "/")), key=len, default="")


def _argv(section: Section) -> tuple[str, ...]:
    argv = section.texts("argv")
    if not argv:
        raise ContractError(section.at("argv"), "is empty")
    absolute(argv[0], section.at("argv") + "/0")
    return argv


def _exec(section: Section) -> Exec:
    section.only("argv", "environment")
    return Exec(argv=_argv(section), environment=section.maybe("environment").mapping())


def _prewarm(section: Section) -> Prewarm:
    section.only("argv", "modules")
    return Prewarm(argv=_argv(section), modules=section.path("modules"))


def _discovery(section: Section) -> Discovery:
    section.only("value", "source", "variable", "always", "features")
    features = section.maybe("features")
    return Discovery(
        value=section.text("value"),
        source=section.path("source"),
        variable=section.text("variable"),
        always=section.texts("always"),
        features={key: features.texts(key) for key in features.fields},
    )


def _probes(section: Section) -> Probes:
    ready = section.section("ready")
    ready.only("path", "bearer", "ignore_failing", "timeout")
    return Probes(
        bearer=ready.text("bearer", ""),
        live=section.section("live").path("path"),
        ready=ready.path("path"),
        ignore_failing=ready.texts("ignore_failing"),
        timeout=ready.number("timeout"),
    )


def _volume(section: Section) -> Volume:
    section.only("kind", "mode")
    kind = section.text("kind")
    if kind not in ("ephemeral", "state", "logs", "values"):
        raise ContractError(section.at("kind"), f"expected ephemeral, state, logs or values, found {kind!r}")
    return Volume(kind=kind, mode=section.text("mode", ""))


def _value(name: str, section: Section) -> Value:
    section.only("need", "secret", "feature", "file", "default")
    if not is_name(name):
        raise ContractError(section.where, "expected a name of A-Z, 0-9 and _, not beginning with a digit")
    value = Value(
        name=name,
        need=section.text("need"),
        secret=section.flag("secret"),
        feature=section.text("feature", ""),
        file=section.path("file", ""),
        default=section.text("default") if "default" in section.fields else None,
    )
    if value.need not in NEEDS:
        raise ContractError(section.at("need"), f"expected {', '.join(NEEDS)}, found {value.need!r}")
    if bool(value.file) != (value.need == "generated"):
        raise ContractError(section.at("file"), "a generated value needs it, and no other may have it")
    if value.need != "optional" and (value.feature or value.default is not None):
        raise ContractError(section.where, "only an optional value has a feature or a default")
    return value


def _operation(section: Section) -> Operation:
    section.only("op", "path", "value")
    op, path = section.text("op"), section.text("path")
    if op not in ("replace", "remove"):
        raise ContractError(section.at("op"), f"expected replace or remove, found {op!r}")
    if (op == "replace") != ("value" in section.fields):
        raise ContractError(section.at("value"), "replace needs it, and remove may not have it")
    if not path.startswith("/"):
        raise ContractError(section.at("path"), f"expected a JSON pointer to a member, found {path!r}")
    parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    return Operation(op=op, path=parts, value=section.fields.get("value"))


def _plugin(section: Section) -> Plugin:
    section.only("id", "package", "project", "path")
    for key in ("package", "project"):
        absolute("/" + section.text(key), section.at(key))
    return Plugin(
        id=section.text("id"),
        package=section.text("package"),
        project=section.text("project"),
        path=section.path("path"),
    )


def _check_whole(contract: Contract, root: Section) -> None:
    """Refuse a reference to nothing, and a place where the entrypoint must not write or delete."""

    def within(path: str, where: str, *kinds: str) -> None:
        volume = contract.volume_of(path)
        if not volume or contract.volumes[volume].kind not in kinds:
            raise ContractError(where, f"{path} is not below a volume of kind {' or '.join(kinds)}")

    target, where = contract.template.target, root.at("template") + "/target"
    within(target, where, "ephemeral")
    if target.rpartition("/")[0] not in contract.volumes:
        raise ContractError(where, "its directory, which is emptied at every start, must be a volume itself")
    for index, path in enumerate(contract.skeleton):
        within(path, f"/skeleton/{index}", "state", "logs")
    for index, path in enumerate(contract.sweep):
        within(path, f"/sweep/{index}", "state")
        if path in contract.volumes:
            raise ContractError(f"/sweep/{index}", f"{path} is a whole volume")
    for value in contract.values.values():
        if value.file:
            within(value.file, f"/values/{value.name}/file", "state")
        if value.feature and value.feature not in contract.features:
            raise ContractError(f"/values/{value.name}/feature", f"{value.feature!r} is not in /features")
    if contract.probes.bearer and contract.probes.bearer not in contract.values:
        raise ContractError("/probes/ready/bearer", f"{contract.probes.bearer!r} is not in /values")
    if contract.discovery:
        if contract.discovery.value not in contract.values:
            raise ContractError("/discovery/value", f"{contract.discovery.value!r} is not in /values")
        for feature in contract.discovery.features:
            if feature not in contract.features:
                raise ContractError(f"/discovery/features/{feature}", "is not in /features")
    if contract.capabilities.get("prewarm", False) != (contract.prewarm is not None):
        raise ContractError("/capabilities/prewarm", "must be true with a section /prewarm, and only then")
    if contract.plugins:
        within(contract.plugin_projects, "/plugins/projects", "state")


def parse(document: object) -> Contract:
    """Check a decoded contract.

    Raises:
        ContractError: The first thing that is wrong, with the JSON pointer of its place.
    """
    root = Section(document, "")
    if root.need("contract") != VERSION or isinstance(root.fields["contract"], bool):
        raise ContractError("/contract", f"expected version {VERSION}, found {root.fields['contract']!r}")
    application, template, features = root.section("application"), root.section("template"), root.maybe("features")
    stop, ports, plugins = root.section("stop"), root.maybe("ports"), root.maybe("plugins")
    volumes, values, capabilities = root.section("volumes"), root.section("values"), root.maybe("capabilities")
    contract = Contract(
        name=root.text("name"),
        image=root.text("image"),
        application=application.text("name"),
        version=application.text("version"),
        exec=_exec(root.section("exec")),
        stop=Stop(signal=stop.text("signal"), timeout=stop.number("timeout")),
        ports={key: ports.number(key) for key in ports.fields},
        discovery=_discovery(root.section("discovery")) if "discovery" in root.fields else None,
        prewarm=_prewarm(root.section("prewarm")) if "prewarm" in root.fields else None,
        probes=_probes(root.section("probes")),
        volumes={absolute(key, volumes.at(key)): _volume(volumes.section(key)) for key in volumes.fields},
        skeleton=root.paths("skeleton"),
        sweep=root.paths("sweep"),
        sync_exclude=root.maybe("sync").texts("exclude"),
        sync_logins=root.maybe("sync").texts("logins"),
        environment=root.maybe("environment").mapping(),
        template=Template(source=template.path("source"), target=template.path("target")),
        values={key: _value(key, values.section(key)) for key in values.fields},
        features={
            key: tuple(_operation(Section(item, where)) for item, where in features.items(key))
            for key in features.fields
        },
        plugin_projects=plugins.path("projects") if plugins.fields else "",
        plugins=tuple(_plugin(Section(item, where)) for item, where in plugins.items("entries")),
        writable=root.paths("writable"),
        capabilities={key: capabilities.flag(key) for key in capabilities.fields},
        limits=root.maybe("limits").fields,
    )
    _check_whole(contract, root)
    return contract


def load(path: str = PLACE) -> Contract:
    """Read and check a contract file.

    Raises:
        ContractError: It cannot be read, is not JSON, or `parse` refuses it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse(loads(file.read()))
    except OSError as error:
        raise ContractError("", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ContractError("", f"{path} is not JSON: {error}") from error
