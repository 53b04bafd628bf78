"""Start of the image: `python3 -I -S <this directory>`; naming this file instead spares the import of `runpy`."""

import sys

# Isolated mode leaves the directory of a script out of the path.
sys.path.insert(0, __file__.rpartition("/")[0])

from claw_entrypoint.cli import main

sys.exit(main(sys.argv[1:]))
