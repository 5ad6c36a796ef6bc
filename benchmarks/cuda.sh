#!/bin/sh
# SPDX-License-Identifier: MIT
# On a machine with a CUDA device: builds the device's tests and benchmarks, runs both, and writes build/report/cuda.md.
#     sh benchmarks/cuda.sh [--quick] [--dirty]    needs nvcc, CMake, doctest (tests alone)
#     sh benchmarks/cuda.sh --direct   without CMake: nvcc alone, DOCTEST_INCLUDE is the folder that has doctest/doctest.h
#     sh benchmarks/cuda.sh --built FOLDER   programs that were built elsewhere (cuda_tests, cuda_bench, cuda_rows_bench, cuda_sparse_bench, cuda_bytes_bench)
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
quick=''
folder=''
direct=''
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --dirty) quick="$quick $1" ;;
    --direct) direct=yes ;;
    --built) folder=$2; shift ;;
    *) echo "usage: sh benchmarks/cuda.sh [--quick] [--dirty] [--direct | --built FOLDER]" >&2; exit 2 ;;
    esac
    shift
done
if [ -n "$direct" ]; then
    folder=$root/build/cuda
    mkdir -p "$folder"
    set -- -std=c++20 -O2 -gencode arch=compute_90a,code=sm_90a "-I$root/include" "-I$root/tests" "-I${DOCTEST_INCLUDE:-/usr/include}"
    jobs=''
    objects=''
    for source in "$root"/tests/cuda/*_test.cu; do
        object=$folder/$(basename "$source" .cu).o
        objects="$objects $object"
        nvcc "$@" -c "$source" -o "$object" & jobs="$jobs $!"
    done
    nvcc "$@" -x cu -c "$root/tests/support/doctest_main.cpp" -o "$folder/main.o" & jobs="$jobs $!"
    for name in cuda_bench cuda_rows_bench cuda_sparse_bench cuda_bytes_bench; do nvcc "$@" "$root/benchmarks/$name.cu" -lcublasLt -o "$folder/$name" & jobs="$jobs $!"; done
    for job in $jobs; do wait "$job"; done
    # shellcheck disable=SC2086 # a list of files
    nvcc -gencode arch=compute_90a,code=sm_90a $objects "$folder/main.o" -o "$folder/cuda_tests"
elif [ -z "$folder" ]; then
    folder=$root/build/cuda
    cmake --preset cuda -S "$root"
    cmake --build "$folder" -j --target cuda_bench cuda_rows_bench cuda_sparse_bench cuda_bytes_bench
    if cmake --build "$folder" --target help | grep -q cuda_tests; then cmake --build "$folder" -j --target cuda_tests; fi
    for name in cuda_tests cuda_bench cuda_rows_bench cuda_sparse_bench cuda_bytes_bench; do find "$folder" -name $name -type f -exec cp {} "$folder/" \; 2>/dev/null || true; done
fi
report=$root/build/report
mkdir -p "$report"
code=0
if [ -x "$folder/cuda_tests" ]; then
    "$folder/cuda_tests" >"$report/cuda_tests.log" 2>&1 || code=$?
    tail -n 3 "$report/cuda_tests.log"
fi
{
    echo '# CUDA'
    echo '```'
    "$folder/cuda_bench" $quick
    if [ -x "$folder/cuda_rows_bench" ]; then "$folder/cuda_rows_bench"; fi
    if [ -x "$folder/cuda_bytes_bench" ]; then "$folder/cuda_bytes_bench"; fi
    if [ -x "$folder/cuda_sparse_bench" ]; then "$folder/cuda_sparse_bench"; fi
    echo '```'
} | tee "$report/cuda.md"
if grep -q WRONG "$report/cuda.md"; then code=1; fi
exit $code
