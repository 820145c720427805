#!/usr/bin/env bash
# On one TPU host: install this checkout with its locked packages and JAX for TPU into .venv.
#
# install_on_host.sh [--storage SOURCE] [--dry-run]
#
#   --storage SOURCE   gs://BUCKET or HOST:/SHARE: also install what is needed to mount it
#   --dry-run          print the commands and run none
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/command_line.sh

storage="" command=()
read_options "storage" "" "$@"

# The image's Python is too old.
run env PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
[[ $dry_run == false && -x .venv/bin/python ]] || run "$HOME/.local/bin/uv" venv --quiet --seed --python 3.12 .venv
jax=$(sed -n 's/^jax==\([^ ]*\).*/\1/p' requirements/py312.txt)
run .venv/bin/python -m pip install --quiet --require-hashes -r requirements/py312.txt
run .venv/bin/python -m pip install --quiet "jax[tpu]==$jax" gcsfs
run .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .

install=(sudo apt-get install --yes --quiet -o DPkg::Lock::Timeout=300)
if [[ $storage == gs://* ]]; then
    [[ $dry_run == true ]] || ! command -v gcsfuse >/dev/null || exit 0
    key=/usr/share/keyrings/cloud.google.asc
    source="deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release --codename --short) main"
    run sudo curl --fail --silent --show-error --output "$key" https://packages.cloud.google.com/apt/doc/apt-key.gpg
    run sudo bash -c "echo '$source' >/etc/apt/sources.list.d/gcsfuse.list"
    run sudo apt-get update --quiet -o DPkg::Lock::Timeout=300
    run "${install[@]}" gcsfuse
elif [[ $storage == *:/* && $storage != gs://* ]]; then
    run "${install[@]}" nfs-common
fi
