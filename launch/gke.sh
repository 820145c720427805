#!/usr/bin/env bash
# Train on a TPU slice of a GKE cluster: fill in launch/gke_jobset.yaml and apply it with kubectl, which must already point at the cluster.
#
# gke.sh --name NAME --image IMAGE --accelerator tpu-v5-lite-podslice --topology 4x4 --storage gs://BUCKET \
#     -- train CONFIG.py --run-dir /mnt/omnia/runs/first --data.shards /mnt/omnia/corpus
#
#   --name NAME             of the JobSet
#   --image IMAGE           built with launch/Dockerfile and pushed where the cluster can pull it
#   --accelerator TYPE      of the node pool: tpu-v5-lite-podslice, tpu-v6e-slice, tpu-v5p-slice, ...
#   --topology TOPOLOGY     of the node pool: 4x4, 2x2x4, ...
#   --chips-per-host N      (4)
#   --storage SOURCE        gs://BUCKET, or the name of a volume claim that many nodes can write (Filestore); mounted at /mnt/omnia
#   --service-account NAME  Kubernetes account that may write the bucket (default)
#   --namespace NAME        (default)
#   --max-restarts N        (100)
#   --spot                  on spot nodes
#   --dry-run               print the manifest and apply nothing
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh
source launch/manifest.sh

name="" image="" accelerator="" topology="" chips_per_host=4 storage="" service_account=default namespace=default max_restarts=100 spot=false command=()
read_options "name image accelerator topology chips-per-host storage service-account namespace max-restarts" "spot" "$@"
need_name
need --image --accelerator --topology --storage
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || mistake "--topology $topology" "Give the sides of the slice, such as 4x4 or 2x2x4."
[[ $chips_per_host =~ ^[1-9][0-9]*$ ]] || mistake "--chips-per-host $chips_per_host" "Give a whole number."
[[ $max_restarts =~ ^[0-9]+$ ]] || mistake "--max-restarts $max_restarts" "Give a whole number."
need_train
[[ $run_dir == /mnt/omnia/* ]] || mistake "--run-dir $run_dir is lost with the pod" "Put it on the storage: --run-dir /mnt/omnia/runs/NAME."
chips=$((${topology//x/*}))
((chips % chips_per_host == 0)) || mistake "--topology $topology has $chips chips" "--chips-per-host must divide them."

selector="\"cloud.google.com/gke-tpu-accelerator\": $(text "$accelerator"), \"cloud.google.com/gke-tpu-topology\": $(text "$topology")"
[[ $spot == false ]] || selector+=', "cloud.google.com/gke-spot": "true"'

read_manifest launch/gke_jobset.yaml
fill NAME "$(text "$name")"
fill NAMESPACE "$(text "$namespace")"
fill MAX_RESTARTS "$max_restarts"
fill HOSTS "$((chips / chips_per_host))"
fill SERVICE_ACCOUNT "$(text "$service_account")"
fill_storage "$storage"
fill NODE_SELECTOR "{$selector}"
fill IMAGE "$(text "$image")"
fill CHIPS_PER_HOST "$chips_per_host"
fill COMMAND "[$(texts omnia "${command[@]}")]"

apply_manifest
if [[ $dry_run == false ]]; then
    echo "# watch: $(quoted kubectl logs --follow --namespace="$namespace" --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0")"
    echo "# stop and delete: $(quoted kubectl delete jobset "$name" --namespace="$namespace")"
fi
