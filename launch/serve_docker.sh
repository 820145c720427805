#!/usr/bin/env bash
# Serve a run in a container on this host: read-only, without rights, started again after a failure.
#
# serve_docker.sh --name chat --image IMAGE --runs runs --keys keys.json -- serve /runs/smollm2
#
#   --name NAME      of the container
#   --image IMAGE    built with launch/Dockerfile
#   --runs FOLDER    of this host, which the container sees as /runs and may not change
#   --keys FILE      of the keys that may ask; the container's user must be able to read it
#   --port N         of this host (8000)
#   --address A      of this host; 0.0.0.0 for all of its own (127.0.0.1)
#   --seconds N      that running texts have to end when it is stopped (30)
#   --gpus           give it the GPUs
#   --dry-run        print the command and do not run it
#
# Stop it: docker stop NAME, which takes nothing new and lets running texts end.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

name="" image="" runs="" keys="" port=8000 address=127.0.0.1 seconds=30 gpus=false command=()
read_options "name image runs keys port address seconds" "gpus" "$@"
need_name
need --image --runs --keys
[[ $port =~ ^[1-9][0-9]*$ && $port -lt 65536 ]] || mistake "--port $port" "Give a number from 1 to 65535."
[[ $seconds =~ ^[1-9][0-9]*$ ]] || mistake "--seconds $seconds" "Give a whole number."
need_serve
create=(docker run --detach --name "$name" --restart on-failure --stop-timeout "$((seconds + 15))" --init)
create+=(--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --user 65534:65534)
create+=(--env HOME=/tmp --env XDG_CACHE_HOME=/cache --volume "omnia-$name-cache:/cache")
create+=(--mount "type=bind,source=$(realpath --canonicalize-missing "$runs"),target=/runs,readonly")
create+=(--mount "type=bind,source=$(realpath --canonicalize-missing "$keys"),target=/keys.json,readonly")
create+=(--publish "$address:$port:8000")
[[ $gpus == false ]] || create+=(--gpus all)
run "${create[@]}" "$image" omnia "${command[@]}" --host 0.0.0.0 --port 8000 --keys /keys.json --drain "$seconds"
echo "# follow it: $(quoted docker logs --follow "$name")"
