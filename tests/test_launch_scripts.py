"""The scripts in launch/, without a cloud: what they would run, and what they do when a fake of each cloud's tool answers.

What --dry-run prints is kept in tests/golden/launch; `python -m tests.test_launch_scripts` writes it anew.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "launch"
SCRIPTS = sorted(path for path in (ROOT / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))
TRAIN = ["train", "configs/gpt2_1558m.py", "--run-dir", "/mnt/omnia/runs/first", "--data.shards", "gs://texts/corpus"]
HARD_WORDS = ["it's", 'two "words"', "$HOME", "a\\b", "`date`", "*", "", "&;|"]

SLICE = ["--name", "first", "--accelerator", "v5litepod-16", "--runtime", "v2-alpha-tpuv5-lite", "--storage", "gs://texts"]
VM = ["--name", "first", "--accelerator", "v5litepod-8", "--runtime", "v2-alpha-tpuv5-lite"]
ELSEWHERE = ["--zone", "us-west4-a", "--project", "mine"]
GKE = "--name first --image pictures/omnia --accelerator tpu-v5-lite-podslice --topology 4x4 --storage gs://texts".split()
SERVED = ["serve", "/runs/first", "--slots", "32"]
SERVE_SYSTEMD = ["--name", "first", "--keys", "keys.json"]
WITH_FILES = ["--tls-cert", "/keys/cert.pem", "--tls-key=/keys/key.pem", "--audit", "/var/lib/omnia-first/audit.jsonl"]
SERVE_DOCKER = "--name first --image pictures/omnia --runs runs --keys keys.json".split()
ON_GKE = "--accelerator tpu-v5-lite-podslice --topology 2x2 --chips 4 --storage gs://texts --keys who".split()
SERVE_GKE = [*"--name first --image pictures/omnia".split(), *ON_GKE]
XPK = "--name first --cluster pod --image pictures/omnia --accelerator v5litepod-16 --storage texts".split()

DRY_RUNS = {
    "tpu_vm": ["tpu_vm.sh", *VM, "--delete", "--dry-run", "--", "train", "configs/quickstart.py", "--run-dir", "runs/first"],
    "tpu_vm_elsewhere": ["tpu_vm.sh", *VM, *ELSEWHERE, "--spot", "--storage", "10.0.0.2:/share", "--dry-run", "--", *TRAIN],
    "tpu_slice": ["tpu_slice.sh", *SLICE, "--spot", "--dry-run", "--", *TRAIN],
    "tpu_slice_quoting": ["tpu_slice.sh", *SLICE, "--zone", "us-west4-a", "--dry-run", "--", *TRAIN, *HARD_WORDS],
    "install_on_host": ["install_on_host.sh", "--storage", "gs://texts", "--dry-run"],
    "install_on_host_nfs": ["install_on_host.sh", "--storage", "10.0.0.2:/share", "--dry-run"],
    "on_host": ["on_host.sh", "--storage", "gs://texts", "--dry-run", "--", *TRAIN],
    "on_host_nfs": ["on_host.sh", "--storage", "10.0.0.2:/share", "--foreground", "--dry-run", "--", *TRAIN],
    "on_host_stop": ["on_host.sh", "--stop", "--dry-run"],
    "preemption_notice": ["preemption_notice.sh", "--dry-run", "omnia", *TRAIN],
    "gke": ["gke.sh", *GKE, "--spot", "--dry-run", "--", *TRAIN, *HARD_WORDS],
    "gke_claim": ["gke.sh", *GKE[:-1], "filestore", "--namespace", "research", "--max-restarts", "3", "--dry-run", "--", *TRAIN],
    "xpk": ["xpk.sh", *XPK, "--zone", "us-west4-a", "--dry-run", "--", *TRAIN, *HARD_WORDS],
    "slurm": ["slurm.sbatch", "--dry-run", *TRAIN],
    "serve_systemd": ["serve_systemd.sh", *SERVE_SYSTEMD, "--memory", "48G", "--dry-run", "--", "serve", "runs/first", "--name", "50% $5"],
    "serve_systemd_files": ["serve_systemd.sh", *SERVE_SYSTEMD, "--dry-run", "--", "serve", "runs/first", *WITH_FILES],
    "serve_systemd_remove": ["serve_systemd.sh", "--name", "first", "--remove", "--dry-run"],
    "serve_docker": ["serve_docker.sh", *SERVE_DOCKER, "--gpus", "--address", "0.0.0.0", "--dry-run", "--", *SERVED],
    "serve_gke": ["serve_gke.sh", *SERVE_GKE, "--replicas", "3", "--dry-run", "--", *SERVED, "--name", *HARD_WORDS[:1]],
    "serve_gke_claim": ["serve_gke.sh", *SERVE_GKE, "--storage", "filestore", "--seconds", "60", "--dry-run", "--", *SERVED],
}  # fmt: skip

RECORD = 'printf "%s" "${0##*/}" >>"$RECORD"; printf "\\t%s" "$@" >>"$RECORD"; printf "\\n" >>"$RECORD"\n'
"""What every fake does first: one line of its name and words."""

CLOUD = r"""
words="$*" life="$(dirname "$RECORD")/life"  # life: state of the queued resource and of its node, once created
case $words in
    *queued-resources\ create*) echo "WAITING_FOR_RESOURCES -" >"$life" ;;
    *delete*) rm -f "$life" ;;
    *describe*)
        if [[ -s $OUTAGE ]]; then sed -i 1d "$OUTAGE"; echo "connection reset" >&2; exit 1; fi
        [[ -f $life ]] || { echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }
        read -r queued node <"$life"
        [[ $words == *tpu-vm* ]] && echo "$node" || echo "$queued"
        [[ $queued != WAITING* ]] || echo "ACTIVE READY" >"$life"
        ;;
    *install_on_host.sh*) ;;
    *on_host.sh*)
        read -r code node <"$SCENARIO"
        sed -i 1d "$SCENARIO"
        echo "ACTIVE $node" >"$life"
        exit "$code"
        ;;
esac
"""
"""A gcloud whose slice ends its runs, and itself, as the lines of $SCENARIO say: exit code of the run, state of the node after it."""

HOST = {
    "sudo": '"$@"',
    "id": "echo 1000",
    "uname": "echo Linux",
    "lsb_release": "echo jammy",
    "mountpoint": "exit 1",
    "chown": "",
    "gcsfuse": "",
    "mkdir": '[[ "$*" == *mnt* ]] || exec /bin/mkdir "$@"',
    "curl": r"""
case "$*" in
    *agent-worker-number*) echo 2 ;;
    *worker-network-endpoints*) echo "$ENDPOINTS" ;;
    *instance/preempted*) [[ -e $NOTICE ]] && echo TRUE || echo FALSE ;;
    *maintenance-event*) [[ -e $MAINTENANCE ]] && echo TERMINATE_ON_HOST_MAINTENANCE || echo NONE ;;
esac
""",
    "systemctl": r"""
case "$*" in
    *ActiveState*) if [[ -s $BUSY ]]; then sed -i 1d "$BUSY"; echo deactivating; else echo inactive; fi ;;
    *ExecMainStatus*) cat "$STATUS" ;;
    is-active*) exit 3 ;;
esac
""",
    "systemd-run": r"""
environment=()
while [[ $1 == --* ]]; do
    case $1 in
        --setenv=*) environment+=("${1#--setenv=}") ;;
        --property=StandardOutput=append:*) log=${1#*append:} ;;
        --working-directory=*) cd "${1#*=}" ;;
    esac
    shift
done
env "${environment[@]}" "$@" >>"$log" 2>&1
echo $? >"$STATUS"
""",
}
"""What a host of a TPU has, and this machine may not have."""

OMNIA = r"""
printf '%s\n' "$OMNIA_PROCESS of $OMNIA_PROCESSES at $OMNIA_COORDINATOR" "$@" >"$SAID"
echo "step 1"
exit "${CODE:-0}"
"""


class Desk:
    """A copy of launch/ with fakes of every tool first on the path, and a record of what they were asked."""

    def __init__(self, folder: Path):
        self.home, self.repository, self.tools = folder / "home", folder / "repository", folder / "tools"
        for made in (self.home, self.repository / "requirements", self.repository / ".venv" / "bin", self.tools):
            made.mkdir(parents=True)
        shutil.copytree(ROOT / "launch", self.repository / "launch")
        (self.repository / "requirements" / "py312.txt").write_text("jax==1.2.3 \\\n    --hash=sha256:00\n")
        self.record = folder / "record"
        self.environment = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "HOME": "/home/somebody",
            "POLL_SECONDS": "0.01",
            "NOTICE_SECONDS": "0.02",
            "ENDPOINTS": "a:0:10.0.0.5,b:1:10.0.0.6,c:2:10.0.0.7,d:3:10.0.0.8",
        }
        for name in ("RECORD", "SCENARIO", "OUTAGE", "BUSY", "STATUS", "NOTICE", "MAINTENANCE", "SAID"):
            self.environment[name] = str(folder / name.lower())
        for tool in ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "xpk", "sky", "docker"):
            self.fake(tool, "")
        for tool, does in HOST.items():
            self.fake(tool, does)
        self.fake("omnia", OMNIA, self.repository / ".venv" / "bin")
        (folder / "status").write_text("0\n")

    def fake(self, name: str, does: str, folder: Path | None = None) -> None:
        path = (folder or self.tools) / name
        path.write_text(f"#!/bin/bash\n{RECORD}{does}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def set(self, name: str, text: str = "") -> None:
        Path(self.environment[name]).write_text(text)

    def run(self, script: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
        command = ["bash", f"launch/{script}", *words]
        return subprocess.run(command, cwd=self.repository, env=self.environment | environment, capture_output=True, text=True, timeout=60)

    def asked(self, pattern: str) -> list[str]:
        """Of the record, the lines that match: name and words, with tabs between."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [line for line in lines if re.search(pattern, line)]

    def said(self) -> list[str]:
        """What omnia was given: how it finds the others, then its words."""
        return Path(self.environment["SAID"]).read_text().split("\n")[:-1]

    def dry_run(self, name: str) -> str:
        done = self.run(*DRY_RUNS[name])
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(str(self.repository), "REPOSITORY")


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_what_it_always_did_and_runs_nothing(name, desk):
    assert desk.dry_run(name) == (GOLDEN / f"{name}.txt").read_text()
    assert not desk.asked(r"^(?!id\t|id$|lsb_release)")


def test_every_script_has_a_dry_run_that_is_kept():
    sourced = {"command_line.sh", "tpu_hosts.sh", "manifest.sh"}
    assert {words[0] for words in DRY_RUNS.values()} == {path.name for path in SCRIPTS} - sourced
    assert {path.stem for path in GOLDEN.iterdir()} == set(DRY_RUNS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


WITH_OPTIONS = ["tpu_vm.sh", "tpu_slice.sh", "gke.sh", "xpk.sh", "install_on_host.sh", "on_host.sh"]
SERVING = ["serve_systemd.sh", "serve_docker.sh", "serve_gke.sh"]


@pytest.mark.parametrize("script", [*WITH_OPTIONS, *SERVING])
def test_help_names_every_option(script, desk):
    done = desk.run(script, "--help")
    taken = re.search(r'^read_options "([^"]*)" "([^"]*)"', (ROOT / "launch" / script).read_text(), re.MULTILINE)
    listed = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", done.stdout.split("\n#")[0]))
    assert done.returncode == 0
    assert {*taken[1].split(), *taken[2].split(), "dry-run"} <= listed


@pytest.mark.parametrize(
    "script, words, train",
    [("tpu_vm.sh", VM, TRAIN), ("tpu_slice.sh", SLICE, TRAIN), ("gke.sh", GKE, TRAIN), ("xpk.sh", XPK, TRAIN)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_or_wrong_is_named_in_two_lines(script, words, train, desk):
    """Each needed option left out in turn, options and commands that make no sense: exit code 2, and no tool is asked anything."""
    calls = [(words[:place] + words[place + 2 :], train, flag) for place, flag in enumerate(words) if flag.startswith("--")]
    calls += [
        ([*words, "--nmae", "first"], train, "--nmae"),
        ([*words, "--name"], None, "--name needs a value"),
        (words, None, "what should be trained"),
        (words, ["evaluate", "runs/first"], "what should be trained"),
        ([*words, "--name", "Not a name"], train, "Not a name"),
    ]
    if script != "tpu_vm.sh":
        calls.append((words, ["train", "configs/quickstart.py", "--run-dir", "runs/first"], "is lost with"))
    for options, command, named in calls:
        done = desk.run(script, *options, *(["--", *command] if command else []))
        assert done.returncode == 2, (options, done.stdout)
        assert named in done.stderr
        assert len(done.stderr.splitlines()) == 2
    assert not desk.asked("gcloud|kubectl|xpk")


@pytest.mark.parametrize("script, words", [*zip(SERVING, (SERVE_SYSTEMD, SERVE_DOCKER, SERVE_GKE), strict=True)], ids=SERVING)
def test_what_is_missing_to_serve_is_named_in_two_lines(script, words, desk):
    calls = [([*words[:place], *words[place + 2 :]], SERVED, flag) for place, flag in enumerate(words) if flag.startswith("--")]
    calls += [
        (words, ["train", "runs/first"], "which run?"),
        (words, ["serve"], "which run?"),
        ([*words, "--seconds", "x"], SERVED, "--seconds"),
    ]
    for options, command, named in calls:
        done = desk.run(script, *options, "--", *command)
        assert done.returncode == 2 and named in done.stderr, (options, done.stdout)
        assert len(done.stderr.splitlines()) == 2
    assert not desk.asked("sudo|docker|kubectl")


def test_a_server_in_a_cluster_has_its_words_keys_and_probes(desk):
    deployment, service = yaml.safe_load_all(desk.dry_run("serve_gke").removeprefix("# kubectl apply --filename=-\n"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"][:4] == ["omnia", "serve", "/runs/first", "--slots"] and "it's" in container["command"]
    assert container["command"][container["command"].index("--keys") + 1] == "/etc/omnia/keys.json"
    volumes = {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert (
        service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    )
    compile(container["readinessProbe"]["exec"]["command"][2], "probe", "exec")


# ---------------------------------------------------------------------------------------------------------------------- a slice


def train_on_slice(desk, scenario: str, *options: str) -> subprocess.CompletedProcess:
    desk.fake("gcloud", CLOUD)
    desk.set("SCENARIO", scenario)
    subprocess.run(["git", "init", "--quiet"], cwd=desk.repository, check=True)
    return desk.run("tpu_slice.sh", *SLICE, *options, "--", *TRAIN, HOME=str(desk.home))


def test_a_preempted_slice_is_created_again_and_goes_on_with_the_same_command(desk):
    done = train_on_slice(desk, "75 PREEMPTED\n0 READY\n", "--spot")
    assert done.returncode == 0, done.stderr
    created, runs = desk.asked("queued-resources\tcreate"), desk.asked("launch/on_host.sh --")
    assert len(created) == len(runs) == 2
    assert len(set(created)) == len(set(runs)) == 1
    assert len(desk.asked("queued-resources\tdelete")) == 1
    assert len(desk.asked("install_on_host.sh")) == 2  # the second slice is bare
    order = [line.split("\t")[4] for line in desk.asked("queued-resources\t(create|delete)|on_host.sh --storage gs://texts -- train")]
    assert order == ["create", "ssh", "delete", "create", "ssh"]


@pytest.mark.parametrize("gone", ["TERMINATED", "PREEMPTED"])
def test_a_slice_that_vanishes_under_the_run_is_created_again(desk, gone):
    """No notice came: ssh ends with 255. It does not count as a restart."""
    done = train_on_slice(desk, f"255 {gone}\n255 {gone}\n0 READY\n", "--max-restarts", "0")
    assert done.returncode == 0, done.stderr
    assert len(desk.asked("queued-resources\tcreate")) == 3


@pytest.mark.parametrize("code", [1, 75, 76, 255])
def test_a_run_that_ends_on_a_healthy_slice_starts_again_there(desk, code):
    done = train_on_slice(desk, f"{code} READY\n0 READY\n")
    assert done.returncode == 0
    assert len(desk.asked("on_host.sh --storage gs://texts --")) == 2
    assert len(desk.asked("queued-resources\tcreate")) == len(desk.asked("install_on_host.sh")) == 1
    assert not desk.asked("queued-resources\tdelete")


@pytest.mark.parametrize("code", [2, 77, 130])
def test_what_starting_again_would_only_repeat_is_not_started_again(desk, code):
    done = train_on_slice(desk, f"{code} READY\n0 READY\n", "--delete")
    assert done.returncode == code
    assert len(desk.asked("on_host.sh --storage gs://texts --")) == 1
    assert not desk.asked("delete")


def test_crashes_are_counted(desk):
    done = train_on_slice(desk, "76 READY\n" * 9, "--max-restarts", "2")
    assert done.returncode == 76
    assert len(desk.asked("on_host.sh --storage gs://texts --")) == 3


def test_nothing_is_deleted_or_created_while_gcloud_cannot_be_reached(desk):
    Path(desk.environment["RECORD"]).with_name("life").write_text("ACTIVE READY\n")
    desk.set("OUTAGE", "down\n" * 5)
    assert train_on_slice(desk, "0 READY\n").returncode == 0
    assert not desk.asked("create|delete")
    desk.set("OUTAGE", "down\n" * 30)
    done = train_on_slice(desk, "0 READY\n")
    assert done.returncode == 1 and "cannot say" in done.stderr and "connection reset" in done.stderr
    assert not desk.asked("create|delete")


def test_a_slice_is_deleted_at_the_end_where_that_is_asked(desk):
    assert train_on_slice(desk, "0 READY\n", "--delete").returncode == 0
    assert len(desk.asked("delete")) == 1
    done = train_on_slice(desk, "0 READY\n")
    assert len(desk.asked("delete")) == 1 and "goes on costing money" in done.stdout


def test_one_vm_is_created_once_and_its_run_is_fetched(desk):
    desk.fake("gcloud", CLOUD)
    desk.set("SCENARIO", "0 READY\n77 READY\n")
    subprocess.run(["git", "init", "--quiet"], cwd=desk.repository, check=True)
    words = [*VM, "--delete", "--", "train", "configs/quickstart.py", "--run-dir", "runs/first"]
    assert desk.run("tpu_vm.sh", *words).returncode == 0
    assert len(desk.asked("tpu-vm\tcreate")) == 1
    assert len(desk.asked("scp\t--recurse\tfirst:omnia/runs/first\truns")) == len(desk.asked("delete")) == 1
    Path(desk.environment["RECORD"]).with_name("life").write_text("ACTIVE READY\n")
    assert desk.run("tpu_vm.sh", *words).returncode == 77
    assert len(desk.asked("tpu-vm\tcreate")) == len(desk.asked("delete")) == 1
    assert len(desk.asked("scp\t--recurse")) == 2


def test_words_reach_omnia_on_the_host_as_they_were_typed(desk):
    """Through the script, gcloud's ssh, the shell of the host, its service and the watcher of notices."""
    desk.fake(
        "gcloud",
        r"""
for word; do [[ $word != --command=* ]] || remote=${word#--command=}; done
case "$*" in
    *describe*queued*|*queued*describe*) echo ACTIVE ;;
    *describe*) echo READY ;;
    *scp*) cp .cache/omnia.tar.gz "$HOME" ;;
    *ssh*) cd "$HOME" && exec bash -c "$remote" ;;
esac
""",
    )
    desk.fake("python3", "")
    python = 'mkdir -p .venv/bin; cp "$MADE_BY_PIP" .venv/bin/omnia; printf "#!/bin/bash\\n" >.venv/bin/python; chmod +x .venv/bin/python'
    (desk.home / ".local" / "bin").mkdir(parents=True)
    desk.fake("uv", python, desk.home / ".local" / "bin")
    subprocess.run(["git", "init", "--quiet"], cwd=desk.repository, check=True)
    (desk.repository / ".gitignore").write_text(".venv/\n.cache/\n")
    made = str(desk.repository / ".venv" / "bin" / "omnia")
    done = desk.run("tpu_slice.sh", *SLICE, "--", *TRAIN, *HARD_WORDS, HOME=str(desk.home), MADE_BY_PIP=made)
    assert done.returncode == 0, done.stderr
    assert desk.said() == ["2 of 4 at 10.0.0.5:8476", *TRAIN, *HARD_WORDS]
    assert "step 1" in done.stdout


# ----------------------------------------------------------------------------------------------------------------------- a host


@pytest.mark.parametrize(
    "endpoints, found",
    [("a:0:10.0.0.5,b:1:10.0.0.6,c:2:10.0.0.7", "2 of 3 at 10.0.0.5:8476"), ("host-0,host-1,host-2,host-3", "2 of 4 at host-0:8476")],
)
@pytest.mark.parametrize("where", [[], ["--foreground"]])
def test_the_processes_of_a_slice_find_each_other_by_both_forms_of_the_metadata(desk, endpoints, found, where):
    done = desk.run("on_host.sh", *where, "--", *TRAIN, HOME=str(desk.home), ENDPOINTS=endpoints)
    assert done.returncode == 0, done.stderr
    assert desk.said()[0] == found


@pytest.mark.parametrize("code", [0, 1, 75, 77])
@pytest.mark.parametrize("where", [[], ["--foreground"]])
def test_a_host_hands_on_the_exit_code_of_the_run_and_what_it_said(desk, code, where):
    (desk.home / "omnia.log").write_text("what an earlier run said\n")
    done = desk.run("on_host.sh", "--storage", "gs://texts", *where, "--", *TRAIN, HOME=str(desk.home), CODE=str(code))
    assert done.returncode == code
    assert done.stdout.splitlines() == ["step 1"]
    (mounted,) = desk.asked("^gcsfuse")
    assert mounted.endswith("\ttexts\t/mnt/omnia") and "metadata-cache-ttl-secs=0" in mounted


def test_a_run_that_goes_on_is_followed_and_not_started_twice(desk):
    """gcloud repeats its command when a connection breaks."""
    (desk.home / "omnia.log").write_text("step 7\n")
    desk.set("BUSY", "yes\n" * 5)
    desk.set("STATUS", "75\n")
    done = desk.run("on_host.sh", "--storage", "gs://texts", "--", *TRAIN, HOME=str(desk.home))
    assert done.returncode == 75
    assert not desk.asked("systemd-run|gcsfuse|omnia\ttrain")


WAITS = r"""
trap 'echo asked >>"$SAID"' TERM
trap 'echo saved >>"$SAID"' USR1
: >"$SAID"
for _ in {1..40}; do [[ -s $SAID && $(tail -n 1 "$SAID") == asked ]] && break; sleep 0.02; done
for _ in {1..20}; do sleep 0.02; done  # to save
exit 75
"""


@pytest.mark.parametrize("what", ["NOTICE", "MAINTENANCE", "SIGTERM"])
def test_a_run_is_asked_to_save_exactly_once(desk, what):
    """By a notice, and by the shutdown that follows it: a second SIGTERM would end omnia without saving."""
    desk.fake("omnia", WAITS)
    command = ["bash", "launch/preemption_notice.sh", "omnia", *TRAIN]
    process = subprocess.Popen(
        command, cwd=desk.repository, env=desk.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = Path(desk.environment["SAID"])
    until(said.exists)
    process.send_signal(signal.SIGUSR1)
    until(lambda: said.read_text() == "saved\n")
    if what == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        desk.set(what)
    until(lambda: said.read_text() == "saved\nasked\n")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert said.read_text() == "saved\nasked\n"


def until(happened, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------------- schedulers


@pytest.mark.parametrize("name, chips", [("gke", 16), ("gke_claim", 16)])
def test_the_manifest_starts_all_hosts_of_the_slice_on_the_given_command(name, chips, desk):
    manifest = yaml.safe_load(desk.dry_run(name))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    words = DRY_RUNS[name]
    assert container["command"] == ["omnia", *words[words.index("--") + 1 :]]
    assert job["parallelism"] == job["completions"] == chips / int(container["resources"]["limits"]["google.com/tpu"])
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    assert "${" not in desk.dry_run(name).split("apiVersion")[1]


@pytest.mark.parametrize("code, starts_again", [(1, True), (75, True), (76, True), (137, True), (2, False), (77, False)])
def test_kubernetes_starts_again_what_is_worth_it(code, starts_again, desk):
    """The rules of Kubernetes and JobSet, played by hand: the first that fits a pod's exit code, then that for the job's reason."""
    spec = yaml.safe_load(desk.dry_run("gke"))["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    reason = "BackoffLimitExceeded" if job["backoffLimit"] == 0 else None
    for rule in job["podFailurePolicy"]["rules"]:
        fits = rule["onExitCodes"]
        if rule["action"] == "FailJob" and (code in fits["values"]) == (fits["operator"] == "In"):
            reason = "PodFailurePolicy"
            break
    action = "RestartJobSet"
    for rule in spec["failurePolicy"]["rules"]:
        if reason in rule.get("onJobFailureReasons", [reason]):
            action = rule["action"]
            break
    assert (action == "RestartJobSet") == starts_again
    assert spec["failurePolicy"]["maxRestarts"] > 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a policy on exit codes needs it


def test_the_manifest_goes_to_kubectl(desk):
    desk.fake("kubectl", 'cat >"$SAID"')
    done = desk.run("gke.sh", *GKE, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert desk.asked("kubectl") == ["kubectl\tapply\t--filename=-"]
    assert yaml.safe_load("\n".join(desk.said()))["kind"] == "JobSet"
    desk.fake("kubectl", "exit 1")
    assert desk.run("gke.sh", *GKE, "--", *TRAIN).returncode == 1


def test_xpk_is_asked_once_for_one_workload(desk):
    assert desk.run("xpk.sh", *XPK, "--", *TRAIN).returncode == 0
    (asked,) = desk.asked("xpk")
    codes = re.search(r"--restart-on-exit-codes=(\S+)", asked)[1].split(",")
    assert {"75", "76"} <= set(codes) and not {"2", "77"} & set(codes)
    assert asked.endswith("\t--command=omnia " + " ".join(TRAIN))


def test_skypilot_goes_on_after_preemptions_and_stalls(desk):
    task = yaml.safe_load((ROOT / "launch" / "sky.yaml").read_text())
    resources = task["resources"]
    assert resources["use_spot"] is True
    assert set(resources["job_recovery"]["recover_on_exit_codes"]) == {75, 76}
    assert "/mnt/omnia" in task["file_mounts"] and set(task["envs"]) == {"BUCKET", "TRAIN"}
    environment = desk.environment | {"TRAIN": " ".join(TRAIN), "CODE": "75"}
    done = subprocess.run(["bash", "-c", task["run"]], cwd=desk.repository, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert desk.said() == ["2 of 4 at 10.0.0.5:8476", *TRAIN]


SRUN = 'while [[ $1 == --* ]]; do shift; done; SLURM_PROCID=1 "$@"'
SLURM = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "gpu[07-09]"}


def slurm(desk, **environment: str) -> subprocess.CompletedProcess:
    desk.fake("srun", SRUN)
    desk.fake("scontrol", '[[ $1 != show ]] || printf "%s\\n" gpu07 gpu08 gpu09')
    return desk.run("slurm.sbatch", *TRAIN, *HARD_WORDS, **SLURM, **environment)


def test_the_tasks_of_slurm_find_each_other(desk):
    assert slurm(desk).returncode == 0
    assert desk.said() == ["1 of 3 at gpu07:20041", *TRAIN, *HARD_WORDS]
    assert len(desk.asked("^srun")) == 1


@pytest.mark.parametrize(
    "code, restarts, again",
    [(0, 0, 0), (75, 0, 1), (75, 50, 1), (76, 50, 1), (1, 0, 1), (137, 2, 1), (1, 3, 0), (2, 0, 0), (77, 0, 0), (130, 0, 0)],
)
def test_slurm_takes_the_job_back_into_the_queue_where_that_is_worth_it(desk, code, restarts, again):
    assert slurm(desk, CODE=str(code), SLURM_RESTART_COUNT=str(restarts)).returncode == code
    assert desk.asked("requeue") == ["scontrol\trequeue\t41"] * again


def test_the_batch_script_says_what_is_missing_before_it_waits_in_a_queue(desk):
    assert desk.run("slurm.sbatch", *TRAIN).returncode == 2  # not submitted
    assert desk.run("slurm.sbatch", "evaluate", **SLURM).returncode == 2
    shutil.rmtree(desk.repository / ".venv")
    assert desk.run("slurm.sbatch", *TRAIN, **SLURM).returncode == 2
    assert not desk.asked("srun|requeue")


# ---------------------------------------------------------------------------------------------------------------- the real tools


@pytest.mark.slow
def test_every_flag_for_gcloud_is_one_of_its_own(desk, tmp_path):
    """The real gcloud is asked for its help, which needs no account and no network."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    settings = {"CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1", "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    flags: dict[tuple[str, ...], set[str]] = {}
    for name in DRY_RUNS:
        for line in re.findall(r"gcloud compute tpus (.*)", desk.dry_run(name)):
            words = re.sub(r"--command=.*", "--command=", line.replace("'", "")).split()
            flags.setdefault(tuple(words[:2]), set()).update(word.partition("=")[0] for word in words if word.startswith("--"))
    assert len(flags) >= 7
    for verb, used in flags.items():
        said = subprocess.run(
            [gcloud, "compute", "tpus", *verb, "--help"], env=os.environ | settings, capture_output=True, text=True
        ).stdout
        known = set(re.findall(r"--[a-z][a-z-]*", re.sub(r"\x1b\[[0-9;]*m|.\x08", "", said))) | {"--quiet"}
        assert used <= known, verb


if __name__ == "__main__":
    import tempfile

    GOLDEN.mkdir(parents=True, exist_ok=True)
    for dry_run in DRY_RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            (GOLDEN / f"{dry_run}.txt").write_text(Desk(Path(scratch)).dry_run(dry_run))
