"""A tiny program that makes given system calls, for containers with no compiler and no interpreter (x86-64 Linux).

`program` gives the bytes of an ELF file that makes each call and writes what the kernel answered to its output;
`answers` reads that: the result, or minus the error's number.
"""

import struct
from collections.abc import Sequence

_BASE = 0x40_0000
_HEADERS = 64 + 56
_REGISTERS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")  # rdi rsi rdx r10 r8 r9
_SYSCALL = b"\x0f\x05"
_PUSH_RESULT = b"\x50"
_EXIT = b"\xb8\x3c\x00\x00\x00\x31\xff" + _SYSCALL
_CHILD_ENDS = b"\x48\x85\xc0\x75" + bytes([len(_EXIT)]) + _EXIT  # a child, whose result is 0, goes no further

CLONE = 56
OLD_GETPID = b"\xb8\x14\x00\x00\x00\xcd\x80"
"""A 32-bit call: `getpid` through `int 0x80`."""


def program(calls: Sequence[tuple[int, ...]], *, before: bytes = b"") -> bytes:
    """An executable.

    Args:
        calls: Number of the call, and up to six arguments.
        before: Machine code that runs first.
    """
    code = before + b"".join(map(_call, calls))
    code += b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\x48\x89\xe6\xba" + struct.pack("<I", 8 * len(calls)) + _SYSCALL
    code += _EXIT
    size = _HEADERS + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identity + header + segment + code


def answers(output: bytes) -> list[int]:
    """What the kernel answered, call by call."""
    found = [value for (value,) in struct.iter_unpack("<q", output)]
    return found[::-1]  # each was pushed onto a stack, which grows downwards


def _call(call: tuple[int, ...]) -> bytes:
    number, *arguments = call
    code = b"\x48\xb8" + _word(number)
    for register, value in zip(_REGISTERS, arguments, strict=False):
        code += register + _word(value)
    return code + _SYSCALL + (_CHILD_ENDS if number == CLONE else b"") + _PUSH_RESULT


def _word(value: int) -> bytes:
    return struct.pack("<Q", value % (1 << 64))
