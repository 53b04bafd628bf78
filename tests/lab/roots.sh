# What is made once and kept: roots, claw's environments for them, the environment of the tests. Sourced by lab.sh.
# shellcheck shell=bash

# Where something is kept; its name is a digest of the words and of the files given.
kept() { # NAME WORDS FILE…
  local digest
  digest=$({ echo "$2"; (cd "$top" && sha256sum -- "${@:3}"); } | sha256sum | cut -c1-16)
  echo "$cache/$1-$digest"
}

# Call `FUNCTION NEW ARGUMENT…`, which fills the directory NEW, unless TARGET exists; two at once wait for each other.
once() { # TARGET FUNCTION ARGUMENT…
  local target=$1 new=$1.new start=$SECONDS
  mkdir -p "$cache"
  exec {lock}> "$target.lock"
  flock "$lock"
  if [ ! -d "$target" ]; then
    rm -rf --one-file-system "$new"
    mkdir "$new"
    "$2" "$new" "${@:3}" || { rm -rf --one-file-system "$new"; die "could not make $target" "the reason stands above"; }
    mv "$new" "$target"
    say "made $target in $((SECONDS - start)) s"
  fi
  exec {lock}>&-
  echo "$target"
}

packages() { sed 's/#.*//' "$here/packages.txt" | tr -s ' \n' ','  | sed 's/^,//; s/,$//'; }

root_of() { kept "$1" "$1 $(uname -m)" tests/lab/packages.txt tests/lab/prepare.sh; } # DIST

make_root() { once "$(root_of "$1")" fill_root "$1"; } # DIST

# The releases whose root is not made yet.
missing_roots() {
  local dist
  for dist in "${dists[@]}"; do [ -d "$(root_of "$dist")" ] || printf '%s ' "$dist"; done
}

fill_root() { # NEW DIST
  say "making a root of $2 with mmdebstrap"
  debian "$2" "$1" --variant=minbase --include="$(packages)" --customize-hook="$here/prepare.sh \"\$1\""
}

# Packages of a release from the mirror that apt of this machine uses. The process ends with all that it mounts.
debian() { # DIST TARGET OPTION…
  local scratch options status=0
  scratch=$(mktemp -d)
  /usr/bin/python3 -B "$here/mirror.py" "$1" "$scratch" > "$scratch/options" || status=$?
  mapfile -t options < "$scratch/options"
  [ "$status" != 0 ] || unshare --mount --propagation private mmdebstrap --quiet --mode=root "${@:3}" "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io "$1" "$2" "$scratch/sources.list" >&2 || status=$?
  rm -rf "$scratch"
  return "$status"
}

venv_of() { # DIST
  local root
  root=$(root_of "$1")
  kept "venv-$1" "$(basename "$root") $(root_python "$root")" \
    constraints.txt entrypoint/pyproject.toml runtime/pyproject.toml tests/lab/install.sh
}

make_venv() { # DIST
  local root
  root=$(make_root "$1")
  once "$(venv_of "$1")" fill_venv "$root"
}

root_python() { basename "$(readlink -f "$1/usr/bin/python3")"; } # such as python3.13

# This machine's pip fetches, since it knows how to reach an index; the root's pip installs from what was fetched. The wheels stay: a
# host, which has no network, can install claw from them.
fill_venv() { # NEW ROOT
  local root=$2 version python minor platforms=()
  version=$(root_python "$root")
  version=${version#python}
  python=$(make_tools)/bin/python
  for minor in {5..36}; do platforms+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
  say "fetching claw's dependencies for Python $version"
  mkdir "$1/wheels"
  "$python" -m pip download --quiet --dest "$1/wheels" --only-binary=:all: --python-version "$version" "${platforms[@]}" \
    --platform "manylinux2014_$(uname -m)" -c "$top/constraints.txt" $(dependencies) >&2 || return 1
  say "installing them in the root"
  unshare --mount --propagation private "$here/install.sh" "$1" "$root" "$top" >&2 || return 1
}

# What the two distributions need, and what builds them.
dependencies() {
  /usr/bin/python3 -c '
import sys, tomllib
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        document = tomllib.load(file)
    project = document["project"]
    for one in [*document["build-system"]["requires"], *project["dependencies"], *project.get("optional-dependencies", {}).get("s3", [])]:
        if not one.startswith("claw-"):
            print(one)
' "$top/entrypoint/pyproject.toml" "$top/runtime/pyproject.toml"
}

# What the tests themselves need. Root does not run what another user could have written.
test_packages=(pytest pytest-xdist)

make_tools() { once "$(kept tools "$(/usr/bin/python3 -V) ${test_packages[*]}" constraints.txt)" fill_tools; }

fill_tools() { # NEW
  say "creating an environment with pytest"
  /usr/bin/python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet -c "$top/constraints.txt" "${test_packages[@]}" >&2
}

# The same with what claw itself needs, for tests/bench.
make_measuring() {
  once "$(kept measuring "$(/usr/bin/python3 -V) ${test_packages[*]}" constraints.txt runtime/pyproject.toml entrypoint/pyproject.toml)" fill_measuring
}

fill_measuring() { # NEW
  fill_tools "$1"
  "$1/bin/python" -m pip install --quiet -c "$top/constraints.txt" httpx $(dependencies) >&2
}
