// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The command line of the example.

#include "arguments.hpp"
#include "kv_memory.hpp"
#include "projection.hpp"
#include "rope_scaling.hpp"

#include <tessera/sampling/sampler.hpp>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace generate {

/// Sizes of a measurement: tokens of the prompt and of the answer.
struct bench_sizes {
    index_t prompt = 0;
    index_t answer = 0;
};

/// A folder of PEFT's, and what the adapter in it is multiplied by.
struct adapter_choice {
    std::string folder;
    float weight = 1;
};

struct options {
    std::string model;
    std::vector<adapter_choice> adapters;
    std::optional<std::string> prompt; ///< without: standard input where it is not a terminal, else a default
    std::optional<std::string> system;
    bool raw = false;
    index_t length = 256;
    tessera::sampling_options choice{.temperature = 0};
    bool on_device = false;
    int threads = 0; ///< 0: what OpenMP says
    kv_options kv;
    index_t context = 0; ///< 0: what is needed, at most what the model was trained for
    rope_scaling rope = rope_scaling::ntk;
    activations products = activations::automatic;
    bool read = false;
    std::optional<std::string> cache; ///< folder of placed weights; without: none are kept
    tessera::content_check cache_check = tessera::content_check::whole;
    bool synthetic = false;
    index_t chunk = 256;
    std::optional<bench_sizes> bench;
    bool help = false;
};

inline constexpr std::string_view usage = R"(usage: generate [options]

Runs a language model of GGUF's llama architecture (SmolLM2, for one) on the CPU.

  --model PATH       GGUF file; default: SmolLM2-135M-Instruct.Q4_1.gguf in $XDG_CACHE_HOME/tessera or ~/.cache/tessera
  --synthetic        a small random model, written to a temporary file first: shows that it runs, the text is noise
  --adapter FOLDER   a LoRA or DoRA adapter in PEFT's files, applied beside the weights as they are stored;
                     --adapter A --adapter B=0.5: several LoRA adapters at once, each times its weight
  --read             copy the file into memory instead of mapping it (for files that may shrink while they are used)
  --cache FOLDER     keep the weights as they are placed for this machine in a file there, and use it the next time
  --cache-check WHAT whole (default): it must hold what every byte of the model says; sampled: a part of them is looked at

  --prompt TEXT      what to ask; default: standard input, or a question of our own
  --system TEXT      the system message; default: the model's
  --raw              the prompt is the text to continue: no chat template, no --system
  --length N         most tokens to generate (256)
  --temperature T    0: the most probable token each time (default); 1: the model's own distribution
  --top-k K, --top-p P, --min-p P
                     draw from the K most probable tokens; from the most probable ones that make up P;
                     from those at least P times as probable as the first; with --temperature above 0
  --seed N           of the draw (0)

  --backend NAME     cpu (default), or cuda in a program that is compiled for it: the whole model on a CUDA device, float32
                     activations, an fp16 cache of the whole text, no adapters
  --threads N        default: as many as OpenMP takes
  --kv K,V           formats of the keys and the values in the KV cache, or one for both (fp16):
                     fp32, fp16, bf16, int8 (a scale for a token and head), int8_g32, e4m3, e5m2, int4, int4_g32, int4_g64,
                     uint4_g32, nf4_g64, e2m1_g32, uint3_g32, uint2_g32 (g32: scales of 32 numbers), pvq32k22 (pyramid vectors, slow)
  --window N         keep the first tokens and the last N in the KV cache, forget those between; memory is that of N
  --sinks N          first tokens that the window keeps, and top-k reads (4)
  --evict POLICY     which tokens count beyond --window (1024): window (as above, in pages of 64), h2o (half are the last tokens,
                     half those that attention used most, every KV head its own), top-k (nothing is forgotten: a step reads the
                     last tokens, half of them, and the best blocks of 16), none (default without --window)
  --context N        positions of the text; beyond those the model was trained for rotations are scaled (a prompt of 16000 tokens:
                     --context 16384); default: what is needed, at most what the model was trained for
  --rope-scaling HOW ntk (default): slow rotations become slower, fast ones stay; linear: all become slower; none
  --exact            float32 activations
  --activations WHAT exact, int8-per-token, int8-per-group (one scale for 32 values) or automatic (default: int8-per-group,
                     and bf16 for prompts where the processor has bf16 tiles); weights of IQ4_NL and IQ4_XS take
                     int8-per-group for int8-per-token
  --chunk N          most prompt tokens that run together (256)
  --bench P,N        measure: P prompt tokens, N tokens one by one, each from an empty context, and N behind the prompt
  --help
)";

namespace detail {

inline adapter_choice parse_adapter(std::string_view text) {
    std::size_t const equals = text.rfind('=');
    if (equals == std::string_view::npos) return {std::string{text}};
    if (equals == 0) throw usage_error{"--adapter is '" + std::string{text} + "', expected a folder before the ="};
    return {std::string{text.substr(0, equals)}, number<float>("weight of --adapter", text.substr(equals + 1), -1000, 1000)};
}

/// The text, if it names formats.
inline std::string kv_formats_of(std::string_view text) {
    try {
        tessera::standard_kv_formats::parse(text);
    } catch (tessera::unsupported_error const& e) {
        throw usage_error{"--kv: " + std::string{e.what()}};
    }
    return std::string{text};
}

inline bench_sizes parse_bench(std::string_view text) {
    std::size_t const comma = text.find(',');
    if (comma == std::string_view::npos) throw usage_error{"--bench wants two numbers: --bench 512,128"};
    bench_sizes const sizes{number<index_t>("--bench", text.substr(0, comma), 0, 1 << 20),
                            number<index_t>("--bench", text.substr(comma + 1), 0, 1 << 20)};
    if (sizes.prompt + sizes.answer == 0) throw usage_error{"--bench 0,0 has nothing to measure"};
    return sizes;
}

/// The options of a command line by name, so that none is ignored.
class given_options {
public:
    void add(std::string_view name) { names_.push_back(name); }
    bool has(std::string_view name) const noexcept { return std::find(names_.begin(), names_.end(), name) != names_.end(); }
    /// None of `names` may be there, because of `why`.
    void refuse(std::initializer_list<std::string_view> names, std::string_view why) const {
        for (std::string_view const name : names)
            if (has(name)) throw usage_error{std::string{name} + " has no effect: " + std::string{why}};
    }

private:
    std::vector<std::string_view> names_;
};

/// What does not go together.
inline void check_together(given_options const& given, options const& o) {
    if (o.kv.evict == eviction::none)
        given.refuse({"--window", "--sinks"}, given.has("--evict") ? "--evict none forgets nothing" : "without --window or --evict nothing is forgotten");
    if (o.kv.evict == eviction::heavy_hitters) given.refuse({"--sinks"}, "--evict h2o keeps no first tokens but heavy ones");
    if (o.choice.temperature == 0) given.refuse({"--top-k", "--top-p", "--min-p"}, "nothing is drawn at --temperature 0, the default");
    if (o.raw) given.refuse({"--system"}, "--raw has no chat template");
    if (o.synthetic) given.refuse({"--model"}, "--synthetic is another model");
    if (!o.cache) given.refuse({"--cache-check"}, "there is no --cache");
    if (given.has("--exact") && o.products != activations::exact) given.refuse({"--exact"}, "--activations says something else");
    if (o.bench)
        given.refuse({"--prompt", "--system", "--raw", "--length", "--temperature", "--top-k", "--top-p", "--min-p", "--seed"},
                     "--bench measures random tokens");
    if (o.on_device)
        given.refuse({"--adapter", "--kv", "--window", "--sinks", "--evict", "--context", "--rope-scaling", "--cache", "--cache-check", "--bench"},
                     "--backend cuda has no such thing");
    if (o.on_device && o.products != activations::exact) given.refuse({"--activations"}, "--backend cuda has float32 activations");
}

} // namespace detail

/// Options are `--name value` or `--name=value`.
/// @throws usage_error
inline options parse_options(std::span<char const* const> arguments) {
    using detail::number;
    options o;
    o.model = default_model_path();
    detail::given_options given;
    std::optional<eviction> evict;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        std::string_view const argument = arguments[i];
        std::size_t const equals = argument.starts_with("--") ? argument.find('=') : std::string_view::npos;
        std::string_view const name = argument.substr(0, equals);
        bool took_value = false;
        auto const value = [&]() -> std::string_view {
            took_value = true;
            if (equals != std::string_view::npos) return argument.substr(equals + 1);
            if (i + 1 == arguments.size()) throw usage_error{std::string{name} + " wants a value"};
            if (std::string_view{arguments[i + 1]}.starts_with("--"))
                throw usage_error{std::string{name} + " wants a value; one that begins with -- is written " + std::string{name} + "=" +
                                  arguments[i + 1]};
            return arguments[++i];
        };
        auto const path = [&] {
            std::string const text{value()};
            if (text.empty()) throw usage_error{std::string{name} + " wants a value that is not empty"};
            return text;
        };
        given.add(name);
        if (name == "--model") o.model = path();
        else if (name == "--adapter") o.adapters.push_back(detail::parse_adapter(path()));
        else if (name == "--prompt") o.prompt = value();
        else if (name == "--system") o.system = value();
        else if (name == "--raw") o.raw = true;
        else if (name == "--length") o.length = number<index_t>(name, value(), 0, 1 << 20);
        else if (name == "--temperature") o.choice.temperature = number<float>(name, value(), 0, 1000);
        else if (name == "--top-p") o.choice.top_p = number<float>(name, value(), 1e-6f, 1);
        else if (name == "--min-p") o.choice.min_p = number<float>(name, value(), 0, 1);
        else if (name == "--top-k") o.choice.top_k = number<index_t>(name, value(), 0, 1 << 30);
        else if (name == "--seed") o.choice.seed = number<std::uint64_t>(name, value(), 0, ~std::uint64_t{0});
        else if (name == "--backend") o.on_device = detail::one_of<bool>(name, value(), {{"cpu", false}, {"cuda", true}});
        else if (name == "--threads") o.threads = number<int>(name, value(), 1, 1024);
        else if (name == "--kv") o.kv.formats = detail::kv_formats_of(value());
        else if (name == "--window") o.kv.window = number<index_t>(name, value(), 1, 1 << 24);
        else if (name == "--sinks") o.kv.sinks = number<index_t>(name, value(), 0, 1 << 24);
        else if (name == "--evict")
            evict = detail::one_of<eviction>(name, value(), {{"none", eviction::none}, {"window", eviction::window},
                                                             {"h2o", eviction::heavy_hitters}, {"top-k", eviction::top_k}});
        else if (name == "--context") o.context = number<index_t>(name, value(), 1, 1 << 24);
        else if (name == "--rope-scaling")
            o.rope = detail::one_of<rope_scaling>(name, value(), {{"none", rope_scaling::none}, {"linear", rope_scaling::linear},
                                                                  {"ntk", rope_scaling::ntk}});
        else if (name == "--exact") o.products = given.has("--activations") ? o.products : activations::exact;
        else if (name == "--activations")
            o.products = detail::one_of<activations>(name, value(), {{"exact", activations::exact},
                                                                     {"int8-per-token", activations::int8_per_token},
                                                                     {"int8-per-group", activations::int8_per_group},
                                                                     {"automatic", activations::automatic}});
        else if (name == "--read") o.read = true;
        else if (name == "--cache") o.cache = path();
        else if (name == "--cache-check")
            o.cache_check = detail::one_of<tessera::content_check>(name, value(), {{"whole", tessera::content_check::whole},
                                                                                   {"sampled", tessera::content_check::sampled}});
        else if (name == "--synthetic") o.synthetic = true;
        else if (name == "--chunk") o.chunk = number<index_t>(name, value(), 1, 1 << 16);
        else if (name == "--bench") o.bench = detail::parse_bench(value());
        else if (name == "--help" || name == "-h") o.help = true;
        else throw usage_error{"unknown option '" + std::string{argument} + "'"};
        if (equals != std::string_view::npos && !took_value) throw usage_error{std::string{name} + " takes no value"};
    }
    o.kv.evict = evict.value_or(given.has("--window") ? eviction::window : eviction::none);
    if (!o.help) detail::check_together(given, o);
    return o;
}

} // namespace generate
