# makeWrapper PROGRAM WRAPPER [--add-flags F] [--set NAME VALUE] [--set-default NAME VALUE]; $shell is set beside it.
makeWrapper() {
  local program=$1 wrapper=$2 flags="" lines="" newline=$'\n'
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      --add-flags) flags="$flags $2"; shift 2 ;;
      --set) lines+="export $2='$3'$newline"; shift 3 ;;
      --set-default) lines+="export $2=\${$2-'$3'}$newline"; shift 3 ;;
      *) echo "makeWrapper of the stand-in knows no $1" >&2; return 1 ;;
    esac
  done
  mkdir -p "$(dirname "$wrapper")"
  printf '#!%s\n%sexec %s%s "$@"\n' "$shell" "$lines" "$program" "$flags" > "$wrapper"
  chmod 755 "$wrapper"
}
