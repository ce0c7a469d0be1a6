#!/usr/bin/env bash
# Checks this tree on a machine with a CUDA GPU, in at most ten minutes and without network:
#
#     bash scripts/gpu_check.sh [--part checks|runs|precision] [--wheels FOLDER] [--python PYTHON]
#
# Prints one page: the machine, and the tables of a part. A part takes at most ten minutes.
#   checks     the tests of tests/gpu; benchmarks.gpu_steps (images a second of eager and captured
#              steps, and what changes of masks take); benchmarks.gpu_lanes (those of whole trials)
#   runs       benchmarks.forecast (partitions at scale small, three seeds, in one process: the time
#              that the run told and the time that it took); benchmarks.gpu_images (training from files)
#   precision  ablations/precision.yaml at scale small: bf16 against fp32, six seeds as lanes
# Lanes, forecast and precision need the packages of the suite, and Fashion-MNIST below GAPBENCH_DATA;
# without the packages the part checks leaves the lanes out. Where OUT is set, the page is also written
# to $OUT/gpu.md, and run folders that are left to $OUT. Exit code: 0; 1 if something failed or took too
# long; 2 without CUDA.
#
# PYTHON (python3 by default) needs torch and numpy; pytest for the tests, torchvision for ResNet-50.
# pydantic is needed too. What it lacks can be carried along: FOLDER holds wheels, fetched before by
#     pip download --only-binary :all: --python-version 3.12 --dest FOLDER pydantic pytest
# or packages as they are unpacked. Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

wheels="" python=python3 chosen=checks
while [ $# -gt 0 ]; do
    case "$1" in
        --part | --wheels | --python)
            [ $# -gt 1 ] || { echo "gpu_check: $1 needs a value" >&2; exit 2; }
            case "$1" in --part) chosen=$2 ;; --wheels) wheels=$2 ;; *) python=$2 ;; esac
            shift 2
            ;;
        *) echo "gpu_check: unknown argument $1; valid: --part, --python, --wheels" >&2; exit 2 ;;
    esac
done
case "$chosen" in
    checks | runs | precision) ;;
    *) echo "gpu_check: --part $chosen is unknown; valid: checks, precision, runs" >&2; exit 2 ;;
esac
[ -z "$wheels" ] || [ -d "$wheels" ] || { echo "gpu_check: --wheels $wheels is not a folder" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1 TMPDIR="$work"
if [ -n "$wheels" ]; then
    for wheel in "$wheels"/*.whl; do
        [ -e "$wheel" ] && "$python" -m zipfile -e "$wheel" "$work/packages"
    done
    PYTHONPATH+=":$work/packages:$(realpath "$wheels")"
fi

"$python" - <<'PYTHON' || exit 2
import sys
try:
    import numpy, pydantic, torch
except ImportError as error:
    sys.exit(print(f"gpu_check: {error.name} cannot be imported: see --wheels", file=sys.stderr) or 2)
if not torch.cuda.is_available():
    sys.exit(print("gpu_check: needs a CUDA GPU, and torch sees none here", file=sys.stderr) or 2)
PYTHON

failed=0
page="$work/page.md"

# part NAME SECONDS COMMAND...: runs a part, its output in $work/NAME
part() {
    local name=$1 seconds=$2 status=0 began=$SECONDS
    shift 2
    timeout --kill-after 10 "$seconds" "$@" > "$work/$name" 2>&1 || status=$?
    [ "$status" -eq 0 ] || failed=1
    [ "$status" -ne 124 ] || echo "took longer than $seconds s" >> "$work/$name"
    echo "| $name | $([ "$status" -eq 0 ] && echo passed || echo "failed ($status)") |" \
        "$((SECONDS - began)) s | $(grep . "$work/$name" | tail -n 1 | tr '|' '/') |" >> "$work/parts"
}

checks() {
    part tests 240 "$python" -m pytest -m gpu tests/gpu -q -p no:cacheprovider
    part resnet20 110 "$python" -m benchmarks.gpu_steps --models ResNet-20 --modes eager captured \
        --steps 50 --page "$work/resnet20.md"
    part resnet50 130 "$python" -m benchmarks.gpu_steps --models ResNet-50 --modes eager captured \
        --steps 10 --rounds 3 --page "$work/resnet50.md"
    if "$python" -c "import sacred, submitit, ruamel.yaml" 2> /dev/null; then
        part lanes 90 "$python" -m benchmarks.gpu_lanes --lanes 1 8 16 --seconds 4 --page "$work/lanes.md"
    else
        echo "| lanes | left out | 0 s | sacred, submitit or ruamel.yaml cannot be imported |" >> "$work/parts"
    fi
}

runs() {
    part forecast 420 "$python" -m benchmarks.forecast --page "$work/forecast.md"
    part images 170 "$python" -m benchmarks.gpu_images --page "$work/images.md"
}

precision() {
    local where=(ablations/precision.yaml --scale small --results "$work/results")
    part precision 570 "$python" -m gapbench run "${where[@]}" --executor local
    "$python" -m gapbench report "${where[@]}" > /dev/null || failed=1 # of what has completed, at least
    cp "$work/results/reports/small/precision/table.md" "$work/precision.md" || failed=1
}

"$chosen"

{
    "$python" - <<'PYTHON'
import platform, sys, time, torch
print("# Check on a GPU\n")
print(f"- GPU: {torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
print(f"- versions: Python {platform.python_version()}, torch {torch.__version__}, "
      f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
print(f"- date: {time.strftime('%Y-%m-%d')}")
PYTHON
    echo "- tree: $(git rev-parse --short HEAD 2> /dev/null || echo unknown)"
    printf '\n| part | result | time | last line |\n| --- | --- | --- | --- |\n'
    cat "$work/parts"
    for name in resnet20 resnet50 lanes forecast images precision; do
        [ -e "$work/$name.md" ] && { echo; sed -n '/^|/,$p' "$work/$name.md"; } || true
    done
    [ ! -e "$work/tests" ] || grep -E '^(FAILED|ERROR)' "$work/tests" | cut -c 1-200 || true
} > "$page"
cat "$page"
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    [ ! -d "$work/results" ] || cp -r "$work/results" "$OUT"
    cp "$page" "$OUT/gpu.md"
    for name in tests resnet20 resnet50 lanes forecast images precision; do
        [ ! -e "$work/$name" ] || cp "$work/$name" "$OUT/$name.txt"
    done
fi
exit "$failed"
