// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The command line of the example.

#include "../generate/arguments.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

using generate::usage_error;

struct options {
    std::string model;
    std::optional<std::string> weights;
    std::optional<std::string> text;
    std::vector<std::string> only; ///< parts of schemes' names; empty: every scheme
    std::string output = ".";
    bool synthetic = false;
    bool quick = false;
    int threads = 0; ///< 0: what OpenMP says
    bool help = false;
};

inline constexpr std::string_view usage = R"(usage: compress [options]

Converts the linear layers of a model to every scheme of the library, and says what that costs and brings: bits, error of the
weights, divergence of the next-token distribution over a text, tokens a second. Writes compress.md, compress.json and
compress.svg (the Pareto front).

  --model PATH     GGUF file of the llama architecture; default: SmolLM2-135M-Instruct.Q4_1.gguf in $XDG_CACHE_HOME/tessera or
                   ~/.cache/tessera
  --synthetic      a small random model instead: shows that it runs, the figures mean nothing
  --weights PATH   a safetensors file of any model instead: its two-dimensional weights, without a text and speeds
  --text PATH      the text to judge on (UTF-8; its first 1024 tokens); default: one of our own
  --quick          a few schemes, the beginning of the text, short measurements
  --only NAMES     only schemes whose names contain one of NAMES, which commas separate
  --output FOLDER  where the files go (the current folder)
  --threads N      default: as many as OpenMP takes
  --help
)";

namespace detail {

/// "a,b" as a and b; empty parts are dropped.
inline std::vector<std::string> split(std::string const& text) {
    std::vector<std::string> out;
    for (std::size_t first = 0; first <= text.size();) {
        std::size_t const last = std::min(text.find(',', first), text.size());
        if (last > first) out.push_back(text.substr(first, last - first));
        first = last + 1;
    }
    if (out.empty()) throw usage_error{"--only wants a name"};
    return out;
}

} // namespace detail

/// Options are `--name value` or `--name=value`.
/// @throws usage_error
inline options parse_options(std::span<char const* const> arguments) {
    options o;
    bool has_model = false;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        std::string_view const argument = arguments[i];
        std::size_t const equals = argument.starts_with("--") ? argument.find('=') : std::string_view::npos;
        std::string_view const name = argument.substr(0, equals);
        bool took_value = false;
        auto const value = [&]() -> std::string {
            took_value = true;
            bool const is_next = equals == std::string_view::npos;
            if (is_next && i + 1 == arguments.size()) throw usage_error{std::string{name} + " wants a value"};
            std::string const text{is_next ? std::string_view{arguments[++i]} : argument.substr(equals + 1)};
            if (text.empty()) throw usage_error{std::string{name} + " wants a value that is not empty"};
            return text;
        };
        if (name == "--model") o.model = value(), has_model = true;
        else if (name == "--weights") o.weights = value();
        else if (name == "--text") o.text = value();
        else if (name == "--only") o.only = detail::split(value());
        else if (name == "--output") o.output = value();
        else if (name == "--threads") o.threads = generate::detail::number<int>(name, value(), 1, 1024);
        else if (name == "--synthetic") o.synthetic = true;
        else if (name == "--quick") o.quick = true;
        else if (name == "--help" || name == "-h") o.help = true;
        else throw usage_error{"unknown option '" + std::string{argument} + "'"};
        if (equals != std::string_view::npos && !took_value) throw usage_error{std::string{name} + " takes no value"};
    }
    if (has_model + o.synthetic + o.weights.has_value() > 1)
        throw usage_error{"--model, --synthetic and --weights name different models: give one of them"};
    if (o.weights && o.text) throw usage_error{"--text judges language models, --weights has none"};
    if (!has_model) o.model = generate::default_model_path();
    return o;
}

} // namespace compress
