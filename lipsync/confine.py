"""What a process gives up before it opens a foreign file: resource limits, then rights, by Landlock and seccomp.

Linux alone has these two. Nothing here can be undone by the process or its threads. All of it works without being root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import socket
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sandbox import Limits

MOST_PROCESSES = 4096  # counted over everything that the user runs, threads too; for root the system counts nothing
MOST_FILES = 64

# Landlock: rights over files, as bits. What an older kernel does not know is left out.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
MAKE_FILE, REMOVE_FILE = 1 << 8, 1 << 5
DEVICE_CONTROL = 1 << 15
FILL = READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | MAKE_FILE | REMOVE_FILE
RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
CONNECT_AND_BIND, ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every processor
DEVICES = ("/dev/urandom", "/dev/null")

# seccomp: system calls refused, by processor: (x86_64, aarch64); -1 where there is none.
REFUSED = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, -1),
    "vfork": (58, -1),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "chroot": (161, 51),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
SOCKET, CLONE, CLONE3, TGKILL = (41, 198), (56, 220), (435, 435), (234, 131)
PROCESSORS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # place in the pairs above, AUDIT_ARCH
CLONE_THREAD = 0x10000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of the filter
ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


@cache
def libc() -> ctypes.CDLL:
    """The C library, for what Python has no name for."""
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *values: int) -> bool:
    """Whether the kernel took it."""
    return libc().prctl(option, *(ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4])) == 0


def confine(limits: Limits, reads: Sequence[str], writes: Sequence[str], libraries: Sequence[str]) -> None:
    """Give up everything but `limits`, reading the files `reads` and `libraries`, and filling the folders `writes`."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.written_bytes),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (getattr(resource, "RLIMIT_NPROC", None), MOST_PROCESSES),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        with contextlib.suppress(ValueError, OSError, TypeError):  # macOS has no limit on address space
            hard = resource.getrlimit(kind)[1]
            known = [value for value in (most, hard) if value != resource.RLIM_INFINITY]
            # At the soft limit of processor time comes SIGXCPU, which says what it was; at the hard one, SIGKILL.
            spare = 5 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else 0
            resource.setrlimit(kind, (min(known), min(known) + spare))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as first_to_go:
        first_to_go.write("1000")
    if platform.system() == "Linux":
        prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        open_files(reads, writes, libraries, limits.network)
        refuse_calls(limits.network)


# --- Landlock ------------------------------------------------------------------------------------------------------


def landlock_version() -> int:
    """0 where the kernel has none."""
    return max(0, libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)) if platform.system() == "Linux" else 0


def open_files(reads: Sequence[str], writes: Sequence[str], libraries: Sequence[str], network: bool) -> bool:
    """From now on only these files can be opened, and no TCP connection; False where the kernel cannot do that."""
    version = landlock_version()
    if not version:
        return False
    rights = RIGHTS_BY_VERSION[max(v for v in RIGHTS_BY_VERSION if v <= version)]
    wanted = [rights]
    if version >= 4:
        wanted.append(0 if network else CONNECT_AND_BIND)
    if version >= 6:
        wanted.append(ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(wanted)}Q", *wanted)
    rules = libc().syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        for path in (*libraries, *DEVICES, *(["/etc", "/run/systemd/resolve", "/usr/share"] if network else [])):
            _allow(rules, path, READ_FILE | READ_DIR, rights)
        for path in reads:
            _allow(rules, path, READ_FILE, rights)
        for path in writes:
            _allow(rules, path, FILL, rights)
        return libc().syscall(RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def write_only_in(folders: Sequence[str]) -> bool:
    """From now on files can be made, changed and removed in these folders alone; False where the kernel cannot do that.

    What may be read and started stays as it was. For programs that are not ours, which `confine` would not let start.
    """
    version = landlock_version()
    if not version:
        return False
    rights = RIGHTS_BY_VERSION[max(v for v in RIGHTS_BY_VERSION if v <= version)]
    rights &= ~(EXECUTE | READ_FILE | READ_DIR | DEVICE_CONTROL)
    attributes = struct.pack("=Q", rights)
    rules = libc().syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        for path in folders:
            _allow(rules, path, rights, rights)
        return prctl(38, 1) and libc().syscall(RESTRICT_SELF, rules, 0) == 0  # PR_SET_NO_NEW_PRIVS
    finally:
        os.close(rules)


def _allow(rules: int, path: str, wanted: int, known: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            wanted &= ~READ_DIR
        libc().syscall(ADD_RULE, rules, 1, struct.pack("=Qi", wanted & known, place), 0)
    finally:
        os.close(place)


# --- seccomp -------------------------------------------------------------------------------------------------------


def refuse_calls(network: bool) -> bool:
    """From now on no program, no other process, no signal to one, and no socket; False where that cannot be had."""
    if platform.machine() not in PROCESSORS:
        return False
    place, processor = PROCESSORS[platform.machine()]
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, processor), (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, 0)]
    if processor == PROCESSORS["x86_64"][1]:
        code += [(AT_LEAST, 0, 1, 0x40000000), refuse]  # the calls of its 32-bit twin
    for numbers in (*REFUSED.values(), *([] if network else [SOCKET])):
        if numbers[place] >= 0:
            code += [(EQUAL, 0, 1, numbers[place]), refuse]
    code += [(EQUAL, 0, 1, CLONE3[place]), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]  # the C library then uses clone
    for number, test, value in ((CLONE, ANY_BIT, CLONE_THREAD), (TGKILL, EQUAL, os.getpid())):
        code += [(EQUAL, 0, 4, number[place]), (LOAD, 0, 0, 16), (test, 1, 0, value), refuse, (RETURN, 0, 0, ALLOW)]
    code.append((RETURN, 0, 0, ALLOW))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    return prctl(22, 2, ctypes.addressof(header))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


# --- what is in force ----------------------------------------------------------------------------------------------


def protections() -> list[str]:
    """Sentences on what holds this process back, each tried; for a child that is confined."""
    kinds = {"address space": "AS", "processor time": "CPU", "size of written files": "FSIZE", "open files": "NOFILE"}
    limited = [k for k, v in kinds.items() if resource.getrlimit(getattr(resource, f"RLIMIT_{v}"))[0] >= 0]
    return [
        f"There are limits on {', '.join(limited)}.",
        f"Only the given file and the libraries can be opened (Landlock, version {landlock_version()})."
        if _refused(os.open, "/", os.O_RDONLY)
        else "Every file that the user of this process may read can be opened: this system has no Landlock.",
        "No program, process or connection can be started (seccomp)."
        if _refused(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        else "Connections can be made: this system has no seccomp.",
    ]


def _refused(action: Callable[..., Any], *arguments: Any) -> bool:
    try:
        action(*arguments)
    except PermissionError:
        return True
    return False
