#!/usr/bin/env bash
# Train on a TPU slice of a cluster made by xpk.
#
# xpk.sh --name NAME --cluster CLUSTER --image IMAGE --accelerator v5litepod-16 --storage STORAGE \
#     -- train CONFIG.py --run-dir /mnt/omnia/runs/first --data.shards /mnt/omnia/corpus
#
#   --name NAME          of the workload
#   --cluster CLUSTER    made by xpk cluster create
#   --image IMAGE        built with launch/Dockerfile and pushed where the cluster can pull it
#   --accelerator TYPE   v5litepod-16, v6e-64, ...
#   --storage STORAGE    a name from xpk storage list, mounted at /mnt/omnia
#   --zone, --project    default: those that gcloud is configured for
#   --max-restarts N     restarts after a preemption, a stall or a crash (100)
#   --dry-run            print the command and run none
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

name="" cluster="" image="" accelerator="" storage="" zone="" project="" max_restarts=100 command=()
read_options "name cluster image accelerator storage zone project max-restarts" "" "$@"
need_name
need --cluster --image --accelerator --storage
[[ $max_restarts =~ ^[0-9]+$ ]] || mistake "--max-restarts $max_restarts" "Give a whole number."
need_train
[[ $run_dir == /mnt/omnia/* ]] || mistake "--run-dir $run_dir is lost with the pod" "Put it on the storage: --run-dir /mnt/omnia/runs/NAME."

# By itself xpk restarts after 42 and 127 to 255; not after 2 (a mistake) and 77 (diverged).
create=(xpk workload create --workload="$name" --cluster="$cluster" --tpu-type="$accelerator" --num-slices=1 --docker-image="$image" --storage="$storage"
    --max-restarts="$max_restarts" "--restart-on-exit-codes=1,75,76" --termination-grace-period-seconds=120 --env=OMNIA_JOIN_SECONDS=900)
[[ -z $zone ]] || create+=(--zone="$zone")
[[ -z $project ]] || create+=(--project="$project")
run "${create[@]}" --command="$(quoted omnia "${command[@]}")"
