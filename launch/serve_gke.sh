#!/usr/bin/env bash
# Serve a run on TPU hosts of a GKE cluster, behind one address within it: fill in launch/serve_gke.yaml and apply it with kubectl, which must
# already point at the cluster. Each replica is one host with the whole model.
#
# serve_gke.sh --name chat --image IMAGE --accelerator tpu-v5-lite-podslice --topology 2x2 --chips 4 --storage gs://BUCKET --keys KEYS \
#     -- serve /mnt/omnia/runs/first
#
#   --name NAME             of the Deployment and the Service
#   --image IMAGE           built with launch/Dockerfile and pushed where the cluster can pull it
#   --accelerator TYPE      of the node pool: tpu-v5-lite-podslice, tpu-v6e-slice, ...
#   --topology TOPOLOGY     of the node pool; of one host: 1x1, 2x2, 2x4
#   --chips N               of a host
#   --storage SOURCE        gs://BUCKET, or the name of a volume claim that many nodes can read; mounted at /mnt/omnia
#   --keys SECRET           Kubernetes secret with keys.json, the file of keys, and probe, a key in it with the role observer
#   --replicas N            (1)
#   --seconds N             that running texts have to end when a replica is stopped (30)
#   --service-account NAME  Kubernetes account that may read the bucket (default)
#   --namespace NAME        (default)
#   --dry-run               print the manifest and apply nothing
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh
source launch/manifest.sh

name="" image="" accelerator="" topology="" chips="" storage="" keys="" replicas=1 seconds=30 service_account=default namespace=default command=()
read_options "name image accelerator topology chips storage keys replicas seconds service-account namespace" "" "$@"
need_name
need --image --accelerator --topology --chips --storage --keys
for flag in chips replicas seconds; do
    [[ ${!flag} =~ ^[1-9][0-9]*$ ]] || mistake "--$flag ${!flag}" "Give a whole number."
done
need_serve

read_manifest launch/serve_gke.yaml
fill NAME "$(text "$name")"
fill NAMESPACE "$(text "$namespace")"
fill REPLICAS "$replicas"
fill SERVICE_ACCOUNT "$(text "$service_account")"
fill_storage "$storage"
fill NODE_SELECTOR "{\"cloud.google.com/gke-tpu-accelerator\": $(text "$accelerator"), \"cloud.google.com/gke-tpu-topology\": $(text "$topology")}"
fill IMAGE "$(text "$image")"
fill CHIPS "$chips"
fill GRACE "$((seconds + 15))"
fill KEYS "$(text "$keys")"
fill COMMAND "[$(texts omnia "${command[@]}" --host 0.0.0.0 --port 8000 --keys /etc/omnia/keys.json --drain "$seconds")]"
apply_manifest
if [[ $dry_run == false ]]; then
    echo "# watch: $(quoted kubectl rollout status --namespace="$namespace" "deployment/$name")"
    echo "# try it: $(quoted kubectl port-forward --namespace="$namespace" "service/$name" 8000)"
    echo "# stop and delete: $(quoted kubectl delete deployment,service "$name" --namespace="$namespace")"
fi
