"""Two builds of an image's archive have the same bytes. Usage: archive_is_the_same_twice.py ARCHIVE ARCHIVE"""

import filecmp
import sys

from verdict import refuse

if __name__ == "__main__":
    first, second = sys.argv[1:3]
    if first == second:
        refuse("both are one build")
    if not filecmp.cmp(first, second, shallow=False):
        refuse(f"{first} and {second} differ; `diffoscope` says where")
