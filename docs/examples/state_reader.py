#!/usr/bin/env python3
"""Reads a tenant's state as docs/STATE_FORMAT.md has it, without claw: a bucket's copy in a directory is enough.

state_reader.py STORE TENANT                    list the newest generation, and say which others there are
state_reader.py STORE TENANT -g 7 -x DIRECTORY  extract generation 7 into a new directory, each digest checked
state_reader.py STORE TENANT -k FILE            it is encrypted: the operator's key (needs `cryptography`)
"""

import base64
import json
import os
import sys
from functools import lru_cache
from hashlib import sha256 as hashed
from pathlib import Path

import zstandard


@lru_cache(maxsize=4)
def checked(path, sha256):
    data = path.read_bytes()
    return data if hashed(data).hexdigest() == sha256 else sys.exit(f"{path} is damaged")


def text(name):  # in an array it is base64 of what is not UTF-8
    return os.fsdecode(base64.b64decode(name[0])) if isinstance(name, list) else name


def changed(places, changes):  # from the last one on, so that the numbers of the others stay
    for first, count, new in reversed(changes):
        places = [*places[:first], *new, *places[first + count :]]
    return places


class State:
    def __init__(self, store, tenant, key_file=None):
        self.root, self.tenant, self.cipher = Path(store, "tenants", tenant), tenant, None
        if key_file:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            line, note = Path(key_file).read_text().split()[0], json.loads((self.root / "KEY").read_bytes())
            operator = AESGCM(bytes.fromhex(line) if len(line) == 64 else base64.b64decode(line))
            wrapped = base64.b64decode(note["wrapped"])
            self.cipher = AESGCM(operator.decrypt(wrapped[:12], wrapped[12:], f"claw key {tenant}".encode()))

    def opened(self, data, purpose, sealed):
        if sealed:
            cipher = self.cipher or sys.exit("the state is encrypted: -k FILE")
            data = cipher.decrypt(data[:12], data[12:], f"claw {purpose} {self.tenant}".encode())
        return zstandard.decompress(data)

    def manifest(self, generation, sha256):
        data = checked(self.root / f"gen/{generation:012d}-{sha256[:16]}.zst", sha256)
        sealed = data.startswith(b"CLAWSEAL")
        header, *lines = map(json.loads, self.opened(data[8 * sealed :], "manifest", sealed).splitlines())
        rows = [row for rows in lines for row in rows]
        return self.merged(header, rows) if header.get("base") else (header, rows)

    def merged(self, header, rows):
        base, old = self.manifest(*header["base"])
        header["packs"], tree = base["packs"] + header["packs"], {text(row[1]): row for row in old}
        for row in rows:
            before = tree.pop(text(row[1]), None)
            if row[0] == "f" and isinstance(row[6], dict):
                row[6] = changed(before[6], row[6]["changes"])
            if row[0] != "-":
                tree[text(row[1])] = row
        return header, [tree[name] for name in sorted(tree, key=lambda name: os.fsencode(name).split(b"/"))]

    def generation(self, wanted):
        head = json.loads((self.root / "HEAD").read_bytes())
        header, rows = self.manifest(head["generation"], head["sha256"])
        earlier = {int(pin.name): json.loads(pin.read_bytes())["sha256"] for pin in self.root.glob("pins/*")}
        earlier |= {past[0]: past[1] for past in header["history"]}
        print("generations:", *sorted(earlier.keys() - {head["generation"]}), head["generation"], file=sys.stderr)
        return (header, rows) if wanted in (0, head["generation"]) else self.manifest(wanted, earlier[wanted])

    def pieces(self, packs, size, sha256, places):  # bytes and length of each; of a hole no bytes
        if isinstance(places, str):
            yield checked(self.root / "blobs" / places, sha256), size
            return
        for place in [[*places, size]] if places and isinstance(places[0], int) else places:
            data = self.frame(*packs[place[0]], place=place[1:3]) if len(place) > 1 else b""
            yield data, len(data) or place[0]

    def write(self, path, packs, size, sha256, places):
        whole, told, at, sparse = hashed(), "", 0, sha256.startswith("places:")
        with path.open("xb") as file:
            for data, length in self.pieces(packs, size, sha256, places):
                whole.update(data if data or sparse else bytes(length))
                told += f"{length} {hashed(data).hexdigest()}\n" if data else f"{length}\n"
                for page in filter(lambda page: any(data[page : page + 4096]), range(0, len(data), 4096)):
                    file.seek(at + page)  # pages of zeros are left out: holes stay holes
                    file.write(data[page : page + 4096])
                at += length
            file.truncate(at)
        found = f"places:{hashed(told.encode()).hexdigest()}" if sparse else whole.hexdigest()
        (at, found) == (size, sha256) or sys.exit(f"{sha256} is damaged")

    def frame(self, pack, _size, sealed=0, *, place):
        return self.opened(checked(self.root / "packs" / pack, pack)[place[0] : sum(place)], "frame", sealed)

    def extract(self, header, rows, target):
        target.mkdir()
        for kind, name, _, _, *rest in sorted(rows, key=lambda row: row[0] == "l"):  # no file goes through a link
            path = target / text(name)
            if {"", ".", ".."} & set(text(name).split("/")):
                sys.exit(f"{name!r} leads out of the state")
            if kind == "l":
                path.symlink_to(text(rest[0]))
                continue
            path.mkdir() if kind == "d" else self.write(path, header["packs"], *rest[:3])
            for key, value in rest[-1]["xattrs"] if rest and isinstance(rest[-1], dict) else ():
                os.setxattr(path, text(key), base64.b64decode(value))
        for kind, name, mode, mtime_ns, *_ in reversed(rows):
            if kind != "l":
                (target / text(name)).chmod(mode)
            os.utime(target / text(name), ns=(mtime_ns, mtime_ns), follow_symlinks=False)


if __name__ == "__main__":
    options = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True)) if sys.argv[2:] else sys.exit(__doc__)
    state = State(*sys.argv[1:3], options.get("-k"))
    generation = state.generation(int(options.get("-g", 0)))
    if "-x" in options:
        state.extract(*generation, Path(options["-x"]))
    else:
        for kind, name, mode, _, *rest in generation[1]:
            print(kind, f"{mode:04o}", rest[0] if kind == "f" else "-", ascii(text(name)))
