#!/usr/bin/env bash
# What has to hold on a machine with a GPU, in one run of at most 8 minutes; docs/gpu.md says what is checked.
#
#   benchmarks/gpu.sh [--device cuda|cpu] [--out FOLDER] [--packages FOLDER] [--seconds N] [--only CHECK]...
#   benchmarks/gpu.sh --prepare FOLDER     pack the tree and gather what a bare machine lacks; needs the package index
#
# The machine needs Python with torch for CUDA. What else is missing it takes from wheels in --packages. Nothing is
# installed into its Python: packages go to a temporary folder, as does the project, by links.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
    python=python3
    if [ -x "$repository/.venv/bin/python" ] && "$repository/.venv/bin/python" -c "import torch" 2>/dev/null; then
        python=$repository/.venv/bin/python
    fi
fi
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# The first process must be able to fork after asking whether there is a GPU.
export PYTORCH_NVML_BASED_CUDA_CHECK=1

if [ "${1:-}" = --prepare ]; then
    shift
    PYTHONPATH=$repository/benchmarks${PYTHONPATH:+:$PYTHONPATH} exec "$python" -P -m gpu.prepare "$@"
fi

packages=
seconds=470
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --packages) packages=${2:?--packages needs a folder}; shift 2 ;;
        --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
        *) arguments+=("$1"); shift ;;
    esac
done

started=$SECONDS
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -n "$packages" ]; then
    if [ ! -d "$packages/wheels" ]; then
        echo "gpu.sh: $packages/wheels is no folder; make it with: benchmarks/gpu.sh --prepare $packages" >&2
        exit 2
    fi
    # They go before the machine's own: packages that belong together come together.
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --target "$site" \
        "$packages"/wheels/*.whl
fi
# The package as it is installed: the front end and the weights inside.
mkdir "$site/nonlocal_video"
ln -s "$repository"/nonlocal_video/* "$site/nonlocal_video/"
ln -s "$repository/app" "$site/nonlocal_video/app"
ln -s "$repository/weights" "$site/nonlocal_video/weights"
export PYTHONPATH=$site:$repository/benchmarks${PYTHONPATH:+:$PYTHONPATH}
export XDG_CACHE_HOME=$site/cache

seconds=$((${seconds%.*} - (SECONDS - started)))
# -P: not the working folder, where the package lies without its weights.
"$python" -P -m gpu --seconds "$seconds" ${arguments[@]+"${arguments[@]}"}
