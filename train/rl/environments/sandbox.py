"""Running code of a model's making: a process for each program, with bounds on time, memory and files.

It keeps accidents in, and what little harm a program can do without files, a network of its own or more processes. It is no prison for a
program that is out to break one: run untrusted models in a container or a virtual machine besides.
"""

import dataclasses
import os
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from data.errors import UserError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of one program."""

    cpu_seconds: int = 2
    """Limit of processor time, in seconds."""
    wall_seconds: float = 10.0
    """Limit of wall-clock time, in seconds. A program that exceeds it is tried once more, since other programs may have slowed it."""
    memory_mb: int = 512
    """Limit of address space, in MiB."""

    def __post_init__(self):
        if min(self.cpu_seconds, self.wall_seconds, self.memory_mb) <= 0:
            raise ValueError(f"limits of a program must be positive: {self}")


_BOUND = """
import os, resource, sys
cpu, memory = int(sys.argv[1]), int(sys.argv[2]) << 20
for kind, most in (("CPU", cpu), ("AS", memory), ("FSIZE", 0), ("NOFILE", 16), ("NPROC", 0), ("CORE", 0)):
    kind = getattr(resource, "RLIMIT_" + kind, None)
    if kind is not None:
        resource.setrlimit(kind, (most, most))
word, _, source = sys.stdin.read().partition("\\n")
sys.argv[1:] = []
answers = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
os.write(answers, word.encode())
"""
"""Run by the child, before the program: the bounds hold for it alone. The word is given back only where the program came to its end, and
not where it left by an exit of its own."""


def passed(programs: list[str], limits: Limits = Limits()) -> list[bool]:
    """Whether each program, a Python source, comes to its end without an error or an exit. Identical programs are run once."""
    if os.name != "posix":
        raise UserError("programs can be bounded on Linux and macOS only", "Use another reward here.")
    distinct = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as threads:
        found = dict(zip(distinct, threads.map(lambda program: _passes(program, limits), distinct), strict=True))
    return [found[program] for program in programs]


def _passes(program: str, limits: Limits) -> bool:
    word = secrets.token_hex(8)
    for _ in range(2):  # the clock is others' too: a run that is resumed must judge alike
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-I", "-S", "-B", "-c", _BOUND, str(limits.cpu_seconds), str(limits.memory_mb)]
            try:
                done = subprocess.run(
                    command,
                    input=f"{word}\n{program}".encode("utf-8", "replace"),
                    cwd=folder,
                    env={},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    timeout=limits.wall_seconds,
                    start_new_session=True,
                )
            except subprocess.TimeoutExpired:
                continue
        return done.returncode == 0 and done.stdout == word.encode()
    return False
