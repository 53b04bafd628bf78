"""What the images' contracts leave out of a state, held against the names that real runs of the programs left."""

import json
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.spec import contract
from claw_runtime.state.rules.selection import Selection

IMAGES = Path(__file__).resolve().parents[4] / "images"

# One line a name, as OpenClaw 2026.6.11 and 2026.9.6 and a tenant at work left them; `-` is not stored.
OPENCLAW = """
+ .claw/gateway-token
+ .openclaw/agents/main/agent/openclaw-agent.sqlite
+ .openclaw/agents/main/sessions/sessions.json
+ .openclaw/agents/main/sessions/0198.jsonl
+ .openclaw/agents/main/sessions/0198.trajectory.jsonl
+ .openclaw/agents/main/sessions/skills-prompts/sha256/00ff
+ .openclaw/config-journal-fingerprint.key
+ .openclaw/credentials/matrix/credentials.json
+ .openclaw/credentials/whatsapp/default/creds.json
+ .openclaw/identity/device.json
+ .openclaw/matrix/accounts/default/host__user/00ff/state/openclaw.sqlite
+ .openclaw/media/inbound/picture.png
+ .openclaw/plugin-skills/x/SKILL.md
+ .openclaw/skills/mine/uv.lock
+ .openclaw/npm/projects/mine-0123456789/package-lock.json
+ .openclaw/npm/projects/mine-0123456789/node_modules/x/yarn.lock
+ .openclaw/state/openclaw.sqlite
+ .openclaw/workspace-attestations/00ff.json
+ bin/tool
+ home/.config/gh/hosts.yml
+ home/.local/share/x
+ lib/python3.11/site-packages/x.py
+ npm/lib/node_modules/x/package.json
+ workspace/AGENTS.md
+ workspace/.git/index
+ workspace/project/uv.lock
+ workspace/project/tmp/draft.md
+ workspace/project/cache/x
+ xdg-data/uv/tools/x
- .openclaw/tmp/openclaw-1000/gateway.state.lock
- .openclaw/tmp/openclaw-1000/gateway.00ff.lock.sqlite
- .openclaw/tmp/plugin-captures/0198/captures/openclaw-plugin-build-1/index.js
- .openclaw/agents/main/agent/models.json
- .openclaw/agents/main/sessions/sessions.json.lock
- .openclaw/agents/main/sessions/0198.jsonl.lock
- .openclaw/npm/projects/openclaw-matrix-e2adb32e7f/node_modules/@openclaw/matrix
- .openclaw/npm/projects/openclaw-whatsapp-290d7f7427/package.json
- home/.cache/openclaw-1000/x
- home/.npm/_logs/x.log
- lib/python3.11/site-packages/x/__pycache__/x.pyc
- npm-cache/_cacache/x
- pip-cache/http/x
- uv-cache/x
- workspace/.git/index.lock
- workspace/project/.git/HEAD.lock
- xdg-cache/x
"""
NANOCLAW = """
+ nanoclaw/store/messages.db
+ nanoclaw/store/auth/creds.json
+ nanoclaw/data/sessions/main/.claude/settings.json
+ nanoclaw/data/registered_groups.json
+ nanoclaw/groups/main/CLAUDE.md
+ home/.config/nanoclaw/mount-allowlist.json
- nanoclaw/.env
- nanoclaw/container
- nanoclaw/data/ipc/main/messages/1.json
- home/.npm/_logs/x.log
"""


@pytest.mark.parametrize(("image", "listing"), [("openclaw-nix", OPENCLAW), ("nanoclaw", NANOCLAW)])
def test_a_contract_leaves_out_what_can_be_made_again_and_nothing_else(image: str, listing: str) -> None:
    """Scratch files, caches, locks, and plugin links that the entrypoint renews; what a person made stays."""
    selection = Selection.everything(contract.load(IMAGES / image / "contract.json").exclude)
    lines = listing.strip().splitlines()
    told = [f"{'+' if selection.stores(line[2:], False) else '-'} {line[2:]}" for line in lines]
    assert told == lines


def test_every_plugin_link_that_the_entrypoint_renews_is_left_out() -> None:
    """It points into the image, which may be another one at the next claim."""
    document = json.loads((IMAGES / "openclaw-nix" / "contract.json").read_text())
    selection = Selection.everything(document["sync"]["exclude"])
    projects = document["plugins"]["projects"].removeprefix("/state/")
    for plugin in document["plugins"]["entries"]:
        assert not selection.stores(f"{projects}/{plugin['project']}/node_modules/{plugin['package']}", False)


def test_a_pattern_that_means_nothing_is_refused() -> None:
    """When the image is looked at, not at a tenant's first commit."""
    text = (IMAGES / "openclaw-nix" / "contract.json").read_text()
    with pytest.raises(InvalidSpec, match=r"/sync/exclude/0: '!' is no pattern"):
        contract.promise(text.replace('"/.openclaw/tmp/"', '"!"'), "image")
