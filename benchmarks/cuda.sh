#!/bin/sh
# SPDX-License-Identifier: MIT
# On a machine with a CUDA device: builds the device's tests and benchmarks, runs both, and writes build/report/cuda.md.
#     sh benchmarks/cuda.sh [--quick] [--dirty]    needs nvcc, CMake, doctest (tests alone)
#     sh benchmarks/cuda.sh --sanitize             the tests under compute-sanitizer's four tools in place of the benchmarks
#     sh benchmarks/cuda.sh --generate FILE.gguf   examples/generate on the device and on the processor (--exact) in place of the benchmarks: do
#                                                  they print the same? Needs CMake; SmolLM2: ~/.cache/tessera after examples/run.sh
#     sh benchmarks/cuda.sh --direct   without CMake: nvcc alone, DOCTEST_INCLUDE is the folder that has doctest/doctest.h
#     sh benchmarks/cuda.sh --built FOLDER   programs that were built elsewhere (cuda_tests, cuda_bench, cuda_rows_bench, cuda_sparse_bench, cuda_bytes_bench, cuda_vector_bench)
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
quick=''
folder=''
direct=''
sanitize=''
model=''
while [ $# -gt 0 ]; do
    case $1 in
    --quick | --dirty) quick="$quick $1" ;;
    --direct) direct=yes ;;
    --sanitize) sanitize=yes ;;
    --generate) model=$2; shift ;;
    --built) folder=$2; shift ;;
    *) echo "usage: sh benchmarks/cuda.sh [--quick] [--dirty] [--sanitize] [--generate FILE] [--direct | --built FOLDER]" >&2; exit 2 ;;
    esac
    shift
done
if [ -n "$model" ]; then
    if [ -z "$folder" ]; then
        folder=$root/build/cuda
        cmake --preset cuda -S "$root" -DTESSERA_BUILD_EXAMPLES=ON
        cmake --build "$folder" -j --target example_generate
        find "$folder" -path '*/examples/generate' -type f -exec cp {} "$folder/" \;
    fi
    report=$root/build/report
    mkdir -p "$report"
    number=0
    for prompt in 'What is gravity? Explain it in three sentences.' 'Write a short poem about the sea.' 'List the planets of the solar system.'; do
        number=$((number + 1))
        for backend in --exact '--backend cuda'; do
            # shellcheck disable=SC2086 # an option and its value
            "$folder/generate" --model "$model" --prompt "$prompt" --length 64 $backend >"$report/generated"
            sed '/^prefill /,$d' "$report/generated" >"$report/generated${backend%% *}.$number"
        done
        if ! cmp "$report/generated--exact.$number" "$report/generated--backend.$number"; then
            echo "generate: the device and the processor differ: $prompt" >&2
            exit 1
        fi
    done
    echo "generate: $number answers of 64 tokens at most, the device's are the processor's"
    exit 0
fi
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
    for name in cuda_bench cuda_rows_bench cuda_sparse_bench cuda_bytes_bench cuda_vector_bench; do nvcc "$@" "$root/benchmarks/$name.cu" -lcublasLt -o "$folder/$name" & jobs="$jobs $!"; done
    for job in $jobs; do wait "$job"; done
    # shellcheck disable=SC2086 # a list of files
    nvcc -gencode arch=compute_90a,code=sm_90a $objects "$folder/main.o" -o "$folder/cuda_tests"
elif [ -z "$folder" ]; then
    folder=$root/build/cuda
    cmake --preset cuda -S "$root"
    cmake --build "$folder" -j --target cuda_bench cuda_rows_bench cuda_sparse_bench cuda_bytes_bench cuda_vector_bench
    if cmake --build "$folder" --target help | grep -q cuda_tests; then cmake --build "$folder" -j --target cuda_tests; fi
    for name in cuda_tests cuda_bench cuda_rows_bench cuda_sparse_bench cuda_bytes_bench cuda_vector_bench; do find "$folder" -name $name -type f -exec cp {} "$folder/" \; 2>/dev/null || true; done
fi
report=$root/build/report
mkdir -p "$report"
code=0
if [ -x "$folder/cuda_tests" ] && [ -z "$sanitize" ]; then # the tools run the cases themselves
    "$folder/cuda_tests" >"$report/cuda_tests.log" 2>&1 || code=$?
    tail -n 3 "$report/cuda_tests.log"
fi
if [ -n "$sanitize" ]; then
    # A tool on one file's cases, many at once. The test of exhausted memory makes the runtime say so: errors of its functions are
    # the tests' own matter.
    export folder report
    # shellcheck disable=SC2016 # expanded by the shell that xargs starts
    one='log=$report/cuda_$0.$1.log
        begun=$(date +%s)
        compute-sanitizer --tool "$0" --report-api-errors no --error-exitcode 1 "$folder/cuda_tests" "--source-file=*/$1.cu" >"$log" 2>&1
        code=$?
        grep -q "test cases: *0" "$log" && code=1
        printf "%-10s %-26s %4d s %s | %s\n" "$0" "$1" "$(($(date +%s) - begun))" "$(grep -E "ERROR SUMMARY|RACECHECK SUMMARY" "$log" | tail -n 1)" "$(grep "assertions:" "$log" | tail -n 1)"
        exit $code'
    for tool in racecheck memcheck initcheck synccheck; do
        for source in "$root"/tests/cuda/*_test.cu; do echo "$tool $(basename "$source" .cu)"; done
    done | xargs -P "${TESSERA_JOBS:-$(nproc)}" -L 1 sh -c "$one" | tee "$report/cuda_sanitize.txt" || code=$?
    [ "$(grep -c 'SUMMARY: 0 ' "$report/cuda_sanitize.txt")" = "$(ls "$root"/tests/cuda/*_test.cu | wc -l | awk '{print 4 * $1}')" ] || code=1
    exit $code
fi
{
    echo '# CUDA'
    echo '```'
    "$folder/cuda_bench" $quick
    if [ -x "$folder/cuda_rows_bench" ]; then "$folder/cuda_rows_bench"; fi
    if [ -x "$folder/cuda_bytes_bench" ]; then "$folder/cuda_bytes_bench"; fi
    if [ -x "$folder/cuda_sparse_bench" ]; then "$folder/cuda_sparse_bench"; fi
    if [ -x "$folder/cuda_vector_bench" ]; then "$folder/cuda_vector_bench" $quick; fi
    echo '```'
} | tee "$report/cuda.md"
if grep -q WRONG "$report/cuda.md"; then code=1; fi
exit $code
