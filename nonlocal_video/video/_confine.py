"""Restrictions of a decoding process on Linux before it reads a hostile file: no network, writing or other programs.

They use two mechanisms of the kernel that need no privileges and no library: Landlock (Linux 5.13) for files and a
seccomp filter for system calls. Both can only become stricter afterwards, and later threads inherit them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on every architecture
_LANDLOCK_VERSION = 1

# linux/landlock.h: every right except reading files and folders (bits 2 and 3), by version of the interface.
_WRITES = {1: 0x1FF3, 2: 0x3FF3, 3: 0x7FF3, 5: 0xFFF3}
_TCP_BIND_AND_CONNECT = 0b11  # version 4
_SIGNALS_AND_ABSTRACT_SOCKETS = 0b11  # version 6

# uapi/linux/audit.h and the tables of system calls: socket, execve, execveat, ptrace, process_vm_writev, bpf, and
# io_uring_setup (which can also open sockets).
_ARCHITECTURES = {
    "x86_64": (0xC000003E, (41, 59, 322, 101, 311, 321, 425)),
    "aarch64": (0xC00000B7, (198, 221, 281, 117, 271, 280, 425)),
}
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_CALLS = 0x40000000


def confine() -> list[str]:
    """Confine this process, irrevocably.

    Returns:
        The restrictions that are enforced, out of "no writing to files", "no network" and "no other programs". A kernel
        or a container may support neither mechanism.
    """
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return []
    enforced = []
    if _forbid_writing(libc):
        enforced.append("no writing to files")
    if _forbid_calls(libc):
        enforced += ["no network", "no other programs"]
    return enforced


def _forbid_writing(libc: ctypes.CDLL) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = _WRITES[max(known for known in _WRITES if known <= version)]
    attributes = struct.pack(
        "QQQ",
        rights,
        _TCP_BIND_AND_CONNECT if version >= 4 else 0,
        _SIGNALS_AND_ABSTRACT_SOCKETS if version >= 6 else 0,
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)  # without rules, nothing is exempt
    finally:
        os.close(ruleset)


def _forbid_calls(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _ARCHITECTURES:
        return False
    architecture, forbidden = _ARCHITECTURES[platform.machine()]
    refuse = _ERRNO | errno.EACCES
    # The filter sees the call's number at byte 0 and the architecture at 4. The same number means another call on
    # another architecture (32 bits, x32), which nothing here uses.
    steps = [
        (_LOAD, 0, 0, 4),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32_CALLS),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for call in forbidden:
        steps += [(_JUMP_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, refuse)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack(
        "HxxxxxxQ" if ctypes.sizeof(ctypes.c_void_p) == 8 else "HxxI", len(steps), ctypes.addressof(instructions)
    )
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0)
