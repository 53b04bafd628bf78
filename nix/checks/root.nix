# The root of an image as a directory. Its links lead into the store, so the image's closure has to be here as well.
{
  python3,
  runCommand,
  zstd,
  image,
}:
runCommand "image-root"
  {
    nativeBuildInputs = [
      python3
      zstd
    ];
    closure = image.stream;
  }
  ''
    zstd -q -d < ${image} > image.tar
    mkdir $out
    python3 -B ${./programs}/image_root.py image.tar $out
  ''
