#!/usr/bin/env bash
# Train on a TPU slice of several hosts. After a preemption it is created again, and the same command resumes from the last checkpoint.
#
# tpu_slice.sh --name NAME --accelerator v5litepod-16 --runtime v2-alpha-tpuv5-lite --storage gs://BUCKET --spot \
#     -- train CONFIG.py --run-dir /mnt/omnia/runs/first --data.shards gs://BUCKET/corpus
#
#   --name NAME          of the queued resource and its node; an existing one is used
#   --accelerator TYPE   v5litepod-16, v6e-64, ... (gcloud compute tpus accelerator-types list)
#   --runtime VERSION    v2-alpha-tpuv5-lite, v2-alpha-tpuv6e, ... (gcloud compute tpus tpu-vm versions list)
#   --storage SOURCE     gs://BUCKET or HOST:/SHARE (Filestore), mounted at /mnt/omnia on every host; holds the run directory
#   --zone, --project    default: those that gcloud is configured for
#   --spot               cheaper, but may be preempted at any time
#   --max-restarts N     restarts after a crash or stall; preemptions are not counted (20)
#   --delete             delete the slice when the run has succeeded
#   --dry-run            print the commands and run none
#
# The queue is polled every POLL_SECONDS (30). Ctrl-C ends this script but not the run: the same command follows it again.
# Exit code: that of omnia train; 1 if no slice can be created.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

name="" accelerator="" runtime="" zone="" project="" storage="" spot=false max_restarts=20 delete=false command=()
read_options "name accelerator runtime zone project storage max-restarts" "spot delete" "$@"
need_name
need --accelerator --runtime --storage
[[ $max_restarts =~ ^[0-9]+$ ]] || mistake "--max-restarts $max_restarts" "Give a whole number."
need_train
[[ $run_dir == /mnt/omnia/* ]] || mistake "--run-dir $run_dir is lost with the slice" "Put it on the storage: --run-dir /mnt/omnia/runs/NAME."
source launch/tpu_hosts.sh

create=(gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" --accelerator-type="$accelerator" --runtime-version="$runtime")
[[ $spot == false ]] || create+=(--spot)
remove=(gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet)
describe_queue=(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)')
describe_node=(gcloud compute tpus tpu-vm describe "$name" "${where[@]}" --format='value(state)')

if [[ $dry_run == true ]]; then
    echo "# The slice: created unless it is there, then awaited."
    run "${describe_queue[@]}"
    run "${create[@]}"
    run "${describe_node[@]}"
    echo "# The code, on every host."
    install_on_hosts
    echo "# The run."
    train_on_hosts
    echo "# After a preemption: delete, then everything from the top."
    run "${remove[@]}"
    exit
fi

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

# What gcloud answers; ABSENT if there is no such resource, UNKNOWN if gcloud fails: a slice is never deleted in doubt.
state() {
    "$@" 2>"$errors" && return
    if grep --quiet NOT_FOUND "$errors"; then
        echo ABSENT
    else
        cat "$errors" >&2
        echo UNKNOWN
    fi
}

# Returns once the slice is ready.
await_slice() {
    local unknown=0 queued node
    while true; do
        queued=$(state "${describe_queue[@]}")
        node=""
        [[ $queued != ACTIVE ]] || node=$(state "${describe_node[@]}")
        case $queued/$node in
            ACTIVE/READY) return ;;
            ABSENT/)
                "${create[@]}"
                ;;
            FAILED/)
                echo "tpu_slice.sh: the request for $name failed." >&2
                gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='yaml(state)' >&2
                echo "       Mend it, and before asking again: $(quoted "${remove[@]}")" >&2
                exit 1
                ;;
            SUSPENDED/ | ACTIVE/PREEMPTED | ACTIVE/TERMINATED | ACTIVE/STOPPED | ACTIVE/ABSENT)
                echo "$name was taken away (${node:-$queued}): it is created again"
                "${remove[@]}"
                ;;
            UNKNOWN/* | */UNKNOWN)
                ((++unknown < 20)) || {
                    echo "tpu_slice.sh: gcloud cannot say how $name is. The run goes on without this script; the same command follows it again." >&2
                    exit 1
                }
                sleep "${POLL_SECONDS:-30}"
                ;;
            *) sleep "${POLL_SECONDS:-30}" ;; # in the queue, being created, being deleted
        esac
    done
}

fresh=true # the hosts are new, or have an older checkout than this one
restarts=0
while true; do
    await_slice
    code=0
    if [[ $fresh == true ]]; then install_on_hosts || code=1; fi
    if ((code == 0)); then
        fresh=false
        train_on_hosts || code=$?
        ((code)) || break
    fi
    [[ $code != 75 ]] || sleep "${POLL_SECONDS:-30}" # after a notice, the preemption itself is still to come
    if [[ $(state "${describe_node[@]}") != READY ]]; then
        fresh=true
        continue
    fi
    case $code in
        2 | 77 | 130) exit "$code" ;; # it would end the same way again, or the user stopped it
    esac
    ((restarts++ < max_restarts)) || exit "$code"
    echo "ended with exit code $code; starting again, $((max_restarts - restarts)) of $max_restarts left"
done

if [[ $delete == true ]]; then
    "${remove[@]}"
else
    echo "# $name goes on costing money until: $(quoted "${remove[@]}")"
fi
