"""Each claim of nix/checks holds for this repository, and fails with one clear line when its subject is broken."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.documents import changed

TOP = Path(__file__).parents[2]
CONTRACT = TOP / "images/openclaw-nix/contract.json"
TEMPLATE = TOP / "images/openclaw-nix/openclaw.json"
OWNERS = re.findall(r'^ {4}"([A-Za-z-]+)"', (TOP / "nix/checks/lock-names-known-owners.nix").read_text(), re.MULTILINE)
Claim = Callable[..., str]
Nix = Callable[..., subprocess.CompletedProcess[str]]


# Claim -> the subject, its file, and what makes it a bad one.
BROKEN: dict[str, tuple[str, Path, Callable[[Any], object]]] = {
    "lock-names-known-owners": (
        "lock",
        TOP / "flake.lock",
        lambda document: document["nodes"]["qmd"]["locked"].update(owner="stranger"),
    ),
    "contract-is-understood": ("contract", CONTRACT, lambda contract: contract.update(healthcheck="/x")),
    "template-holds-no-secret": (
        "template",
        TEMPLATE,
        lambda template: template["gateway"]["auth"].update(token="hunter2"),
    ),
    "entrypoint-installs-nothing": ("contract", CONTRACT, lambda c: c["exec"].update(argv=["/usr/bin/npx", "x"])),
}


class TestLock:
    """lock-names-known-owners"""

    def test_the_lock_is_sound(self, claim: Claim) -> None:
        """Every input is pinned by hash, and its owner is on the list."""
        assert claim("lock-names-known-owners", TOP / "flake.lock", *OWNERS) == ""

    def test_no_owner_is_allowed_in_vain(self) -> None:
        """The list has the owners of the lock and no others."""
        nodes = json.loads((TOP / "flake.lock").read_text())["nodes"]
        assert {node["locked"]["owner"] for node in nodes.values() if "locked" in node} == set(OWNERS)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                lambda n: n["qmd"]["locked"].update(owner="stranger"),
                "qmd comes from stranger/qmd, an owner that nobody",
            ),
            (lambda n: n["qmd"]["locked"].update(repo="other"), "qmd was asked of tobi/qmd and is locked to another"),
            (lambda n: n["qmd"]["locked"].update(type="tarball"), "qmd is of type 'tarball'"),
            (lambda n: n["qmd"]["locked"].update(rev="main"), "qmd has no full revision: 'main'"),
            (lambda n: n["qmd"]["locked"].update(narHash="sha256-AAAA"), "qmd has no sha256 narHash"),
            (lambda n: n["qmd"]["locked"].pop("narHash"), "qmd has no sha256 narHash"),
            (lambda n: n["root"]["inputs"].update(x="gone"), "root/x is gone, which is not locked"),
            (lambda n: n["root"]["inputs"].update(nixpkgs=["nix-openclaw", "no"]), "and there is no no"),
            (lambda n: n.update(spare=n["qmd"]), "spare is locked, but no input leads to it"),
        ],
    )
    def test_a_bad_lock_is_refused(
        self, claim: Claim, tmp_path: Path, change: Callable[[Any], object], said: str
    ) -> None:
        """A stranger, another repository, another kind, no revision, no hash, and inputs that lead nowhere."""
        lock = changed(TOP / "flake.lock", tmp_path / "flake.lock", lambda document: change(document["nodes"]))
        assert said in claim("lock-names-known-owners", lock, *OWNERS)


class TestContract:
    """contract-is-understood"""

    @pytest.mark.parametrize(
        "path", sorted((TOP / "images").glob("*/contract.json")), ids=lambda path: path.parent.name
    )
    def test_contracts_are_understood(self, claim: Claim, path: Path) -> None:
        """Every key of every contract has a reader."""
        assert claim("contract-is-understood", path, TOP / "entrypoint") == ""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda c: c.update(healthcheck="/x"), "/healthcheck: nothing reads this key"),
            (lambda c: c["stop"].update(grace=1), "/stop/grace: nothing reads this key; known here: signal, timeout"),
            (lambda c: c["exec"].update(shell=True), "/exec/shell"),
            (lambda c: c["values"]["CLAW_MODEL_ID"].update(secrt=True), "/values/CLAW_MODEL_ID/secrt"),
            (lambda c: c["tools"].update(jq="jq --version"), "/tools/jq: expected a command as a list of words"),
            (
                lambda c: c["volumes"]["/state"].update(kind="forever"),
                "state/kind: expected ephemeral, state, logs or values",
            ),
        ],
    )
    def test_an_unknown_key_is_refused(
        self, claim: Claim, tmp_path: Path, change: Callable[[Any], object], said: str
    ) -> None:
        """A key that nobody reads is a mistake, also in a section; so is what the entrypoint refuses."""
        contract = changed(CONTRACT, tmp_path / "contract.json", change)
        assert said in claim("contract-is-understood", contract, TOP / "entrypoint")


class TestTemplate:
    """template-holds-no-secret"""

    @pytest.mark.parametrize("folder", ["openclaw-nix", "nanoclaw"])
    def test_templates_hold_placeholders(self, claim: Claim, folder: str) -> None:
        """No image's template has a credential in it."""
        contract = json.loads((TOP / "images" / folder / "contract.json").read_text())
        template = TOP / "images" / folder / Path(contract["template"]["source"]).name
        assert claim("template-holds-no-secret", template, TOP / "images" / folder / "contract.json") == ""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda t: t["gateway"]["auth"].update(token="hunter2"), "/gateway/auth/token: a literal"),
            (
                lambda t: t["gateway"]["auth"].update(token="x${OPENCLAW_GATEWAY_TOKEN}"),
                "/gateway/auth/token: a literal",
            ),
            (lambda t: t["gateway"]["auth"].update(token="${CLAW_MODEL_ID}"), "CLAW_MODEL_ID is not marked secret"),
            (lambda t: t["logging"].update(note="ghp_" + "a1" * 18), "/logging/note: looks like a credential"),
        ],
    )
    def test_a_secret_is_refused(
        self, claim: Claim, tmp_path: Path, change: Callable[[Any], object], said: str
    ) -> None:
        """A literal, a placeholder of a plain value, and a token that hides under another name."""
        template = changed(TEMPLATE, tmp_path / "openclaw.json", change)
        assert said in claim("template-holds-no-secret", template, CONTRACT)


class TestEntrypoint:
    """entrypoint-installs-nothing"""

    def test_the_entrypoint_only_starts(self, claim: Claim) -> None:
        """Its sources open no connection and start no program but the gateway."""
        assert claim("entrypoint-installs-nothing", TOP / "entrypoint/claw_entrypoint", CONTRACT) == ""

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("import subprocess", "seed.py:1: import of subprocess"),
            ("from urllib.request import urlopen", "seed.py:1: import of urllib.request"),
            ("os.system('npm install')", "seed.py:1: call of system"),
            ("__import__('socket')", "seed.py:1: call of __import__"),
        ],
    )
    def test_an_installer_is_refused(self, claim: Claim, tmp_path: Path, line: str, said: str) -> None:
        """What could fetch or run something is named with its place."""
        (tmp_path / "seed.py").write_text(line + "\n")
        assert said in claim("entrypoint-installs-nothing", tmp_path, CONTRACT)

    def test_a_command_that_installs_is_refused(self, claim: Claim, tmp_path: Path) -> None:
        """The gateway's own command is no package client."""
        contract = changed(CONTRACT, tmp_path / "c.json", lambda c: c["exec"].update(argv=["/usr/local/bin/npx", "x"]))
        assert "/exec/argv runs /usr/local/bin/npx" in claim(
            "entrypoint-installs-nothing", TOP / "entrypoint/claw_entrypoint", contract
        )


class TestThroughNix:
    """The claims as builds: what `nix flake check` would say."""

    def build(self, nix: Nix, claim: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        python = os.path.realpath(sys.executable)
        return nix(
            "nix-build", "--no-out-link", TOP / "tests/nix/bare.nix", "-A", claim, "--argstr", "python", python, *words
        )  # fmt: skip

    @pytest.mark.parametrize("name", sorted(BROKEN))
    def test_a_claim_holds(self, nix: Nix, name: str) -> None:
        """The build of the claim succeeds for this repository."""
        done = self.build(nix, name)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", sorted(BROKEN))
    def test_a_claim_fails_with_one_line(self, nix: Nix, tmp_path: Path, name: str) -> None:
        """The build of the claim fails, and its log is the claim's one line."""
        subject, source, change = BROKEN[name]
        broken = changed(source, tmp_path / source.name, change)
        done = self.build(nix, name, "--arg", subject, broken)
        assert done.returncode != 0
        assert len(re.findall(rf"^{name}: .+$", done.stderr, re.MULTILINE)) == 1, done.stderr
