"""Two servers of one run, one of which guesses: seconds for the same texts, by turns.

python benchmarks/guesses.py RUN PROMPTS [--at-once 1] [--temperature 0] [--tokens 160] -- --guesses 3
python benchmarks/guesses.py RUN PROMPTS -- --draft SMALL_RUN

PROMPTS: a file with a prompt on each line. The texts must be the same; ratios are of medians, above 1 where guesses are faster.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OMNIA = Path(__file__).parent.parent / "omnia.py"


class Server:
    def __init__(self, run: str, *options: str):
        command = [sys.executable, str(OMNIA), "serve", run, "--port", "0", "--slots", "4", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "ready after" in line)
        found = re.search(r"at (\S+),", line)
        assert found is not None
        self.address = found[1]

    def text(self, body: dict) -> str:
        request = urllib.request.Request(f"{self.address}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["choices"][0]["text"]

    def timed(self, bodies: list[dict]) -> tuple[float, list[str]]:
        began = time.perf_counter()
        with ThreadPoolExecutor(len(bodies)) as pool:
            texts = list(pool.map(self.text, bodies))
        return time.perf_counter() - began, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("prompts")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("guessing", nargs="+", help="options of the server that guesses, behind --")
    o = parser.parse_args()
    prompts = Path(o.prompts).read_text().splitlines()
    plain, guessing = Server(o.run), Server(o.run, *o.guessing)
    ratios, same, count = [], 0, 0
    try:
        for number in range(-1, o.rounds):  # the first is not counted
            chosen = [prompts[(number * o.at_once + row) % len(prompts)] for row in range(o.at_once)]
            shared = {"max_tokens": o.tokens, "temperature": o.temperature}
            bodies = [shared | {"prompt": text, "seed": row} for row, text in enumerate(chosen)]
            order = (plain, guessing) if number % 2 else (guessing, plain)
            found = {server: server.timed(bodies) for server in order}
            seconds, their = found[plain][0], found[guessing][0]
            if number >= 0:
                ratios.append(seconds / their)
                same += sum(one == other for one, other in zip(found[plain][1], found[guessing][1], strict=True))
                count += len(bodies)
                print(f"{o.at_once} at once: {seconds:.2f} s plain, {their:.2f} s with guesses", flush=True)
        print(f"plain / with guesses: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {same} of {count} the same")
    finally:
        for server in (plain, guessing):
            server.process.kill()
            server.process.wait()


if __name__ == "__main__":
    main()
