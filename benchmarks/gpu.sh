#!/usr/bin/env bash
# Check and time a training step on a machine with a GPU, torch and torchvision, and no network.
#
#   bash benchmarks/gpu.sh [WHEELS [ARGUMENTS of benchmarks/gpu.py]]
#
# WHEELS is a folder with the packages that such a machine lacks; to fill it here:
#   pip download --no-deps --dest wheels diffusers open_clip_torch ftfy wcwidth resvg_py \
#       importlib_metadata peft accelerate transformers timm safetensors pydantic pydantic_core
# Results go to $OUT, or to runs/gpu. To rehearse without a GPU: bash benchmarks/gpu.sh "" --small
set -euo pipefail
wheels=${1:+$(realpath "$1")}
[ $# -gt 0 ] && shift
cd "$(dirname "$0")/.."
if [ -n "$wheels" ]; then
    python3 -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
fi
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD" KCDP_CACHE="${KCDP_CACHE:-${TMPDIR:-/tmp}/kcdp-cache}"
python=.venv/bin/python
[ -z "$wheels" ] && [ -x $python ] || python=python3
exec $python benchmarks/gpu.py --out "${OUT:-runs/gpu}" "$@"
