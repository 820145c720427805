#!/usr/bin/env bash
# Train on one TPU VM: create it, copy this checkout there, install it, train, and fetch the run directory.
#
# tpu_vm.sh --name NAME --accelerator v5litepod-8 --runtime v2-alpha-tpuv5-lite -- train CONFIG.py --run-dir runs/first --data.shards gs://BUCKET/corpus
#
#   --name NAME          of the TPU VM; an existing one is used
#   --accelerator TYPE   v5litepod-8, v6e-8, ... (gcloud compute tpus accelerator-types list)
#   --runtime VERSION    v2-alpha-tpuv5-lite, v2-alpha-tpuv6e, ... (gcloud compute tpus tpu-vm versions list)
#   --zone, --project    default: those that gcloud is configured for
#   --storage SOURCE     gs://BUCKET or HOST:/SHARE, mounted at /mnt/omnia; a run directory there is not fetched
#   --spot               cheaper, but may be preempted; this script does not create it again, tpu_slice.sh does
#   --delete             delete the TPU VM when the run has succeeded and is fetched
#   --dry-run            print the commands and run none
#
# Exit code: that of omnia train. The same command resumes a run that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

name="" accelerator="" runtime="" zone="" project="" storage="" spot=false delete=false command=()
read_options "name accelerator runtime zone project storage" "spot delete" "$@"
need_name
need --accelerator --runtime
need_train
source launch/tpu_hosts.sh

create=(gcloud compute tpus tpu-vm create "$name" "${where[@]}" --accelerator-type="$accelerator" --version="$runtime")
[[ $spot == false ]] || create+=(--spot)
describe=(gcloud compute tpus tpu-vm describe "$name" "${where[@]}")

if [[ $dry_run == true ]] || ! "${describe[@]}" --format='value(state)' >/dev/null 2>&1; then
    run "${create[@]}"
fi
install_on_hosts
code=0
train_on_hosts || code=$?

if [[ $run_dir != /* ]]; then
    run mkdir -p "$(dirname "$run_dir")"
    run gcloud compute tpus tpu-vm scp --recurse "$name:omnia/$run_dir" "$(dirname "$run_dir")" "${where[@]}" || exit "$((code ? code : 1))"
fi
if [[ $delete == true && $code == 0 ]]; then
    run gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet
else
    echo "# $name goes on costing money until: $(quoted gcloud compute tpus tpu-vm delete "$name" "${where[@]}")"
fi
exit "$code"
