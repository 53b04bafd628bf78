"""A small program that replaces four files of its state at each request, as tests of lost and mixed states need it."""

import json

from lab import image

PROGRAM = """\
mkdir -p /state/cgi-bin
cat > /state/cgi-bin/write <<'END'
#!/bin/sh
version=${QUERY_STRING%-*}
cd /state
for name in a b c; do echo $version > $name.new; done
yes $version | head -c 100000 > big.new
case $QUERY_STRING in *-flushed) sync a.new b.new c.new big.new ;; esac
for name in a b c big; do mv $name.new $name; done
case $QUERY_STRING in *-flushed) sync /state ;; esac
printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' $version
END
chmod 755 /state/cgi-bin/write
exec httpd -f -p 8080 -h /state
"""
"""In the place of each file is the old one or the new one, also after a power failure."""
WORKLOAD = (
    image.WORKLOAD.replace("pool: {min_size: 1, max_size: 4}", "pool: {min_size: 2, max_size: 8}")
    + f"command: {json.dumps(['sh', '-c', PROGRAM])}\n"
)
