"""How this host reaches Debian, for mmdebstrap: `mirror.py DIST SCRATCH` prints options, one per line.

They name files in SCRATCH, a private directory: the host's mirrors for the release DIST, and its passwords for them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "runtime"))

from claw_runtime.engine import buildhost


def main(dist: str, scratch: Path) -> None:
    host = buildhost.this_host()
    sources = [line.split() for line in buildhost.debian_sources(host)]
    if not sources:
        sys.exit("lab: apt on this host names no Debian mirror, so no root can be made")
    lines = (f"deb {uri} {suite.replace(buildhost.SUITE, dist)} main\n" for _, uri, suite, _ in sources)
    (scratch / "sources.list").write_text("".join(lines))
    (scratch / "auth.conf").touch(mode=0o600)
    (scratch / "auth.conf").write_text(buildhost.apt_credentials(host))
    print(f'--setup-hook=cp {scratch}/auth.conf "$1"/etc/apt/auth.conf')
    for line in buildhost.apt_options(host):
        print(f"--aptopt={line}")


main(sys.argv[1], Path(sys.argv[2]))
