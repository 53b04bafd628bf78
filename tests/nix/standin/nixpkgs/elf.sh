# Debian's programs for the store. $machine is the Debian root, $glibc the package with its C library.
objects=$machine/usr/lib/x86_64-linux-gnu
libraries=$objects:$objects/pulseaudio:$objects/blas:$objects/lapack
loader=$machine/usr/lib64/ld-linux-x86-64.so.2
[ -e "$loader" ] || loader=$objects/ld-linux-x86-64.so.2

# The Debian root's patchelf with the Debian root's libraries: this host need not have either.
patchelf() { "$loader" --inhibit-cache --library-path "$libraries" "$machine/usr/bin/patchelf" "$@"; }

is_elf() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]; }

# adopt PROGRAM SOURCE [MODULE…]: PROGRAM becomes SOURCE with interpreter and libraries in the store. The libraries
# that MODULEs need are copied too. DT_RPATH and not DT_RUNPATH: what a program opens later inherits it.
adopt() {
  local program=$1 source=$2
  shift 2
  mkdir -p "$(dirname "$program")" "$out/lib"
  install -m 755 "$source" "$program"
  if ! is_elf "$program" || ! patchelf --print-interpreter "$program" > interpreter 2>&1; then return; fi
  copy_libraries "$source" "$@"
  patchelf --set-interpreter "$glibc/lib/ld-linux-x86-64.so.2" "$program"
  patchelf --force-rpath --set-rpath "$out/lib:$glibc/lib" "$program"
}

copy_libraries() {
  local object library
  for object; do
    "$loader" --inhibit-cache --library-path "$libraries" --list "$object" > needed
    if grep 'not found' needed; then echo "$object: the machine lacks libraries" >&2; return 1; fi
    sed -n 's|.* => \(/[^ ]*\) (.*|\1|p' needed | while read -r library; do
      case $library in
        "$machine"/*) ;;
        *) echo "$object: $library is this host's, not the machine's" >&2; return 1 ;;
      esac
      [ -e "$glibc/lib/${library##*/}" ] || [ -e "$out/lib/${library##*/}" ] ||
        copy_library "$library" "$out/lib/${library##*/}"
    done
  done
}

# A library's own DT_RUNPATH names places of Debian's, and would hide its program's DT_RPATH.
copy_library() { # SOURCE TARGET
  install -m 644 "$(readlink -f "$1")" "$2"
  if [ -n "$(patchelf --print-rpath "$2")" ]; then patchelf --remove-rpath "$2"; fi
}

# For a program that patchelf breaks (Go's linker leaves no room): started by the loader, out of libexec.
adopt_loaded() { # PROGRAM SOURCE
  local real=$out/libexec/${1##*/}
  mkdir -p "$out/bin" "$out/lib"
  copy_libraries "$2"
  install -D -m 755 "$2" "$real"
  makeWrapper "$glibc/lib/ld-linux-x86-64.so.2" "$1" --add-flags "--library-path $out/lib:$glibc/lib $real"
}

# adopt_all PATH…: every program of a Debian package; links among them stay links.
adopt_all() {
  local path name
  mkdir -p "$out/bin"
  for path; do
    name=${path##*/}
    if [ -L "$machine$path" ]; then
      case $(readlink "$machine$path") in /* | */*) ;; *) ln -s "$(readlink "$machine$path")" "$out/bin/$name" ;; esac
    elif [ -f "$machine$path" ]; then
      adopt "$out/bin/$name" "$machine$path"
    fi
  done
}
