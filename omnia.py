"""The `omnia` command: lists its verbs, and imports what a verb needs only when it is called."""

import difflib
import errno
import importlib
import importlib.util
import keyword
import os
import signal
import sys
import traceback
from pathlib import Path

# The function of a verb has its name, and so has the file in train/verbs/ that it is in, but for those of HOMES: see file_of.
VERBS = {
    "quickstart": "train a small model of Python code on this machine in minutes, and show what it learned",
    "prepare": "clean raw text, and turn text and media into shards",
    "anonymize": "write texts, tables and pictures without what tells who somebody is",
    "inspect": "show a folder of shards: counts, lengths, samples, the rows of any step",
    "import": "make a run from a published model: a Hugging Face folder, a GGUF file",
    "export": "write a run for other libraries: a Hugging Face folder, a GGUF file",
    "train": "train from a config file, or resume a run",
    "launch": "train with several processes on this machine, restarted after a crash",
    "checkpoint": "list, verify, compare and export the checkpoints of a run",
    "plan": "predict memory, collectives and step time on a pod that you do not have yet",
    "label": "sample responses of a policy and record which is best, by its environment's reward",
    "evaluate": "measure a run on its validation split",
    "apply": "answer rows by a run: a task's answers, or an application's",
    "attack": "change labelled texts a little until a classifier is wrong, and write them",
    "explain": "say what of a text an answer rests on",
    "privacy": "plan differentially private training, and audit a run that was trained so",
    "federate": "learn where the data is: split files among clients, run a server or a client",
    "generate": "continue a prompt, a file of prompts, or what you type",
    "chat": "talk with a model in the terminal",
    "serve": "answer requests in OpenAI's form, with a chat page",
    "review": "decide on what a server's gate stopped, and make pairs of it to learn from",
    "audit": "check that a log of requests is what was written",
    "embed": "write a vector for each line of a file",
    "reproduce": "run a paper's table and compare the results with the paper",
    "report": "draw the report of a run again, also while it trains",
    "doctor": "check devices, versions, memory and disk, for an experiment or in general",
}
CONFIG_HELP = "--config FILE, with any verb: lets runs with classes of that config file use them."
ROOMS = ("data", "model", "train", "serve")
HOMES = {"chat": "serve.cli", "serve": "serve.cli"}
"""Files of the verbs that are not in train/verbs/."""
COMPUTING = (
    "quickstart",
    "train",
    "launch",
    "label",
    "evaluate",
    "apply",
    "attack",
    "explain",
    "privacy",
    "federate",
    "generate",
    "chat",
    "serve",
    "embed",
)
"""Verbs that start JAX for long enough to be worth a second start of Python."""
WRITING = tuple("quickstart prepare anonymize import export train launch label apply attack embed reproduce report".split())
"""Verbs that write files: what they print is not worth stopping for. Of the others it is all that they do."""
TRANSIENT = frozenset(
    "EIO EAGAIN EINTR ENOMEM ENOBUFS ETIMEDOUT ECONNRESET ECONNREFUSED ECONNABORTED EHOSTUNREACH ENETDOWN ENETRESET ENETUNREACH ESTALE "
    "EREMOTEIO".split()
)
"""Errors of the system that may be gone when the command is started again. All others are for the user to mend."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Exit code 0: done; 2: a mistake of the user's, said in a line or two; 1: ours, or one that may not come again."""
    stranger = foreign_room()
    if stranger:
        print(f"omnia: {stranger}\n       Run from another folder, or uninstall that package.", file=sys.stderr)
        return 2
    from data.errors import UserError
    from data.files.streams import STDOUT, discard, dispensable, essential, open_streams

    own_process = arguments is None
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; what a notebook around us has set need not be installed here
    if arguments is None:
        open_streams()
        arguments = sys.argv[1:]
        if arguments and arguments[0] in COMPUTING:
            ask_for_huge_pages()
    try:
        with dispensable() if arguments and arguments[0] in WRITING else essential():
            return run(arguments)
    except UserError as error:
        what, code = str(error), error.code
    except BrokenPipeError:
        discard(sys.stdout)  # the reader of our output left; nothing to say
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno is None:  # not the system's: somebody's own use of the class
            raise
        what, code = system_error(error), 1 if errno.errorcode.get(error.errno) in TRANSIENT else 2
        if error.filename == STDOUT:
            discard(sys.stdout)
    except Exception as error:
        from train.runs.classes import described, own_file

        if not (path := own_file(error)):
            raise
        with dispensable():
            traceback.print_exception(error)
        what, code = f"{described(path, error)}\nThe code of that config file raised this.", 2
    except KeyboardInterrupt:
        if own_process:  # threads of others that are still at work abort an interpreter that ends in the usual way
            with dispensable():
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(128 + signal.SIGINT)
        return 128 + signal.SIGINT
    with dispensable():
        print("omnia: " + what.replace("\n", "\n       "), file=sys.stderr)
    return code


def run(arguments: list[str]) -> int:
    """The verb that the arguments name; its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(VERBS)}."
        print(f"omnia: no verb {verb!r}: {hint}", file=sys.stderr)
        return 2
    if verb != "launch":  # which hands it to every process
        rest = allow_config(rest)
    from train.runs import roles

    name = file_of(verb)
    with roles.acting(verb):
        return getattr(importlib.import_module(HOMES.get(verb, f"train.verbs.{name}")), name)(rest) or 0


def file_of(verb: str) -> str:
    """The name of a verb's file in train/verbs/, and of the function in it: import_ of `import`, which Python keeps for itself."""
    return f"{verb}_" if keyword.iskeyword(verb) else verb


def allow_config(arguments: list[str]) -> list[str]:
    """The arguments without `--config FILE`, which lets runs with classes of that file load it."""
    for place, argument in enumerate(arguments):
        name, equals, path = argument.partition("=")
        if name == "--config":
            from data.errors import UserError
            from train.runs.classes import allow

            if not equals and place + 1 == len(arguments):
                raise UserError("--config names no file", "Give one: --config FILE.")
            allow(path if equals else arguments[place + 1])
            return allow_config(arguments[:place] + arguments[place + (1 if equals else 2) :])
    return arguments


def system_error(error: OSError) -> str:
    """What the system refused, where, and how to mend it."""
    where = (
        os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "" if error.filename is None else str(error.filename)
    )
    mends = {
        errno.ENOSPC: "Free space on that disk (`df`).",
        errno.EDQUOT: "Free space within your quota.",
        errno.EACCES: "Change its permissions, or choose another path.",
        errno.EPERM: "Change its permissions, or choose another path.",
        errno.EROFS: "Choose a path on a file system that can be written.",
        errno.ENOTDIR: "A part of the path is a file: choose another path.",
        errno.EISDIR: "It is a folder: give a file.",
        errno.EEXIST: "It exists: choose another path.",
        errno.ENOENT: "Check the path.",
        errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    }
    mend = mends.get(error.errno or 0, "Mend that; the same command then goes on.")
    return f"{where or 'the system'}: {error.strerror}\n{mend}"


def ask_for_huge_pages() -> None:
    """Start this process again where that has glibc ask the kernel for pages of 2 MiB, which it can only do from its start on.

    A step's temporary memory is one large block, given back to the kernel when it is freed. On a CPU the next step has it cleared and
    mapped anew, 4 KiB at a time: up to a third of a small model's time (docs/log.md).
    """
    try:
        on_request = "[madvise]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return
    tunables, name = os.environ.get("GLIBC_TUNABLES", ""), "glibc.malloc.hugetlb"
    if on_request and name not in tunables:
        os.environ["GLIBC_TUNABLES"] = f"{tunables}:{name}=1".lstrip(":")
        os.execv(sys.executable, sys.orig_argv)


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "omnia VERB ...",
            "",
            *lines,
            "",
            "omnia VERB --help lists what a verb takes.",
            "--config FILE: with any verb, a config file whose own classes a run uses.",
        ]
    )


def foreign_room() -> str:
    """A line naming a room that Python would import from somewhere else, or nothing."""
    home = Path(__file__).resolve().parent
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != home:
            return f"the package {room!r} is imported from {spec.origin if spec else 'nowhere'}, not from {home}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
