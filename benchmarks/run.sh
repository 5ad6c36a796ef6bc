#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the benchmarks for this machine, runs them, and writes build/report/: JSON, a Markdown table, plots.
#     sh benchmarks/run.sh [--quick] [FILTER]     --quick: under two minutes; FILTER: a regular expression of names
# Run it on a machine that does nothing else. TESSERA_NO_INSTALL=1 installs nothing and names what is missing.
# Peers that are installed, or whose folders CMAKE_PREFIX_PATH names (separated by ":"), are measured beside; others are
# left out. CONTRIBUTING.md says where they come from.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

quick=no
filter=.
for argument in "$@"; do
    case $argument in
    --quick) quick=yes ;;
    -*) fail "usage: sh benchmarks/run.sh [--quick] [FILTER]" ;;
    *) filter=$argument ;;
    esac
done

needs='compiler cmake ninja xsimd benchmark python'
# Plots are worth an installation where it is possible, and nothing where it is not.
if [ "${TESSERA_NO_INSTALL:-0}" = 1 ] && ! present matplotlib; then
    say "missing: python3-matplotlib ($(purpose matplotlib)); the report will have no plots"
else
    needs="$needs matplotlib"
fi
setup $needs

report=$root/build/report
mkdir -p "$report"
rm -f "$report"/*.json
# Seen by every program that loads it, before its constructors run; peers/openblas.hpp chooses the core.
unset OPENBLAS_L2_SIZE
# Huge pages for the peers too: ours ask for them by themselves.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
say "building for this machine (log: build/benchmarks.log)"
if ! { configure benchmarks && cmake --build "$root/build/benchmarks" -j "$(processors)"; } \
    >"$root/build/benchmarks.log" 2>&1; then
    tail -n 40 "$root/build/benchmarks.log" >&2
    fail "the build failed, see build/benchmarks.log"
fi
say "$(sed -n 's/^-- tessera: \(peers found\)/\1/p' "$root/build/benchmarks.log" | tail -n 1)"

# select PROGRAM: a regular expression of the names to run; with --quick a few, spread evenly over the list.
select_names() {
    "$1" --benchmark_list_tests --benchmark_filter="$filter" 2>/dev/null | awk -v quick=$quick -v most="$each" '
        { name[n++] = $0 }
        END {
            step = quick == "yes" && n > most ? n / most : 1
            for (i = 0; i < n; i += step) pattern = pattern (pattern == "" ? "" : "|") "^" name[int(i)] "$"
            print pattern
        }'
}

started=$(date +%s)
failed=''
programs=$(find "$root/build/benchmarks/benchmarks" -maxdepth 1 -name '*_bench' -type f | sort)
[ -n "$programs" ] || fail "there are no benchmarks"
# A measurement of five rounds takes up to 7 seconds, most of them for writing gigabytes of weights, ours and the peers'.
each=$((18 / $(echo "$programs" | wc -l)))
[ $each -gt 0 ] || each=1
if [ $quick = yes ]; then
    export BENCH_ROUNDS="${BENCH_ROUNDS:-5}"
fi
for program in $programs; do
    name=$(basename "$program")
    names=$(select_names "$program")
    [ -n "$names" ] || continue
    say "$name"
    "$program" --benchmark_filter="$names" --benchmark_counters_tabular=true \
        --benchmark_out="$report/$name.json" --benchmark_out_format=json || failed="$failed $name"
done
"$(plotting_python || echo python3)" "$root/benchmarks/report.py" "$report"
if [ $quick = no ] && [ "$filter" = . ]; then
    python3 "$root/benchmarks/compile_time.py" "$report" "$(compiler)" -O2 -march=native || failed="$failed compile_time"
fi
say "$(minutes $(($(date +%s) - started))) minutes; the report is build/report/report.md"
[ -z "$failed" ] || fail "failed:$failed"
