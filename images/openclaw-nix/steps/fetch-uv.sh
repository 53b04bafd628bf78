#!/bin/sh
# uv from PyPI: the wheel is only unpacked.
# usage: fetch-uv.sh VERSION
set -eu
python3 -m pip download --quiet --no-deps --only-binary :all: --dest /tmp/uv "uv==$1"
python3 -m zipfile -e /tmp/uv/uv-*.whl /tmp/uv
install -D -m 755 "/tmp/uv/uv-$1.data/scripts/uv" /opt/uv/bin/uv
install -D -m 755 "/tmp/uv/uv-$1.data/scripts/uvx" /opt/uv/bin/uvx
rm -rf /tmp/uv
