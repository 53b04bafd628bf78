# What every derivation of the stand-in runs: the host's tools, setup hooks, then a command or the phases.
export PATH=/usr/bin:/bin LC_ALL=C SOURCE_DATE_EPOCH=1 TZ=UTC
umask 022
if [ -e .attrs.sh ]; then
  . ./.attrs.sh
  out=${outputs[out]}
  export out
fi
for input in ${nativeBuildInputs[@]:-}; do
  if [ -e "$input/nix-support/setup-hook" ]; then . "$input/nix-support/setup-hook"; fi
  PATH=$input/bin:$PATH
done
eval "${buildCommand:-$installPhase}"
