"""The `omnia` command: lists its verbs, and imports what a verb needs only when it is called."""

import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path

VERBS = {
    "quickstart": "train a small model of Python code on this machine in minutes, and show what it learned",
    "prepare": "turn raw text into shards",
    "inspect": "show a folder of shards: counts, lengths, samples, the rows of any step",
    "train": "train from a config file, or go on with a run",
    "launch": "train on several processes of this machine, and start them again after a crash",
    "checkpoint": "list, verify, compare and export the checkpoints of a run",
    "plan": "compile a training step for a pod that is not there: memory, collectives, the time of a step",
    "label": "draw responses of a policy and write down which is best, by its environment's reward",
    "evaluate": "measure a run on its validation split",
    "generate": "continue a prompt, a file of prompts, or what you type",
    "report": "draw the report of a run again, also while it trains or after it was killed",
    "doctor": "check devices, versions, memory and disk, for an experiment or in general",
}
HOMES = {"launch": "train.launch", "checkpoint": "train.checkpoint_verbs", "plan": "train.plan", "label": "train.rl.label"}
"""Where a verb's function is, if not in train.cli."""
ROOMS = ("data", "model", "train")
COMPUTING = ("quickstart", "train", "launch", "label", "evaluate", "generate")
"""Verbs that start JAX for long enough to be worth a second start of Python."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Exit code 0: done; 2: a mistake of the user's, said in a line or two; 1: ours."""
    if arguments is None:
        arguments = sys.argv[1:]
        if arguments and arguments[0] in COMPUTING:
            ask_for_huge_pages()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(VERBS)}."
        print(f"omnia: no verb {verb!r}: {hint}", file=sys.stderr)
        return 2
    stranger = foreign_room()
    if stranger:
        print(f"omnia: {stranger}\n       Run from another folder, or uninstall that package.", file=sys.stderr)
        return 2
    from data.errors import UserError

    try:
        return getattr(importlib.import_module(HOMES.get(verb, "train.cli")), verb)(rest) or 0
    except UserError as error:
        print("omnia: " + str(error).replace("\n", "\n       "), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; nothing to say
        return 1


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
    return "\n".join(["omnia VERB ...", "", *lines, "", "omnia VERB --help lists what a verb takes."])


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
