// SPDX-License-Identifier: MIT
/// @file
/// Runs a language model from a GGUF file: see options.hpp for the arguments, llama.hpp for the model.
/// Exit codes: 0 done (also when interrupted), 1 the model cannot be run, 2 wrong arguments.

#include "backend.hpp"
#include "chat.hpp"
#if defined(TESSERA_GENERATE_CUDA)
#include "cuda_model.hpp"
#endif
#include "llama.hpp"
#include "options.hpp"
#include "report.hpp"
#include "synthetic.hpp"
#include "tokenizer.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/interop/peft_stack.hpp>
#include <tessera/sampling/sampler.hpp>
#include <tessera/storage/mapped_file.hpp>
#include <tessera/storage/placed_cache.hpp>

#include <csignal>
#include <cstdio>
#include <exception>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace {

namespace ts = tessera;
using namespace generate;

volatile std::sig_atomic_t interrupted = 0;

extern "C" void interrupt(int signal) {
    interrupted = 1;
    std::signal(signal, SIG_DFL); // a second Ctrl-C ends the program at once
}

/// A file that is gone when the program ends.
class temporary_file {
public:
    explicit temporary_file(std::vector<std::byte> const& bytes) {
        char const* const folder = std::getenv("TMPDIR");
        path_ = std::string{folder != nullptr && *folder != '\0' ? folder : "/tmp"} + "/tessera-synthetic-XXXXXX";
#if defined(__unix__) || defined(__APPLE__)
        int const descriptor = ::mkstemp(path_.data());
        std::FILE* const out = descriptor < 0 ? nullptr : ::fdopen(descriptor, "wb");
#else
        std::FILE* const out = std::fopen(path_.c_str(), "wb");
#endif
        bool const written = out != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size();
        if (out == nullptr || std::fclose(out) != 0 || !written)
            ts::detail::raise<ts::format_error>(path_ + ": cannot write the synthetic model");
    }
    temporary_file(temporary_file const&) = delete;
    temporary_file& operator=(temporary_file const&) = delete;
    ~temporary_file() { std::remove(path_.c_str()); }
    std::string const& path() const noexcept { return path_; }

private:
    std::string path_;
};

std::string read_prompt(options const& o) {
    if (o.prompt) return *o.prompt;
    std::string text;
#if defined(__unix__) || defined(__APPLE__)
    if (::isatty(STDIN_FILENO) == 0)
#endif
    {
        char piece[4096];
        while (std::size_t const n = std::fread(piece, 1, sizeof piece, stdin)) text.append(piece, n);
        while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    }
    return text.empty() ? "What is gravity?" : text;
}

std::vector<token_id> encode_prompt(options const& o, ts::gguf::file const& file, tokenizer const& words) {
    std::string const prompt = read_prompt(o);
    std::vector<token_id> tokens;
    if (o.raw) {
        tokens = words.encode(prompt);
    } else {
        std::vector<message> messages;
        if (o.system) messages.push_back({"system", *o.system});
        messages.push_back({"user", prompt});
        tokens = read_chat_template(file).encode(words, messages);
    }
    if (words.adds_begin_token() && (tokens.empty() || tokens.front() != words.begin_token()))
        tokens.insert(tokens.begin(), words.begin_token());
    if (tokens.empty()) throw usage_error{"the prompt has no tokens"};
    return tokens;
}

void print_memory(llama<backend> const& model, ts::mapped_file const& file) {
    std::printf("memory          %s at most, of which placed weights %s, KV cache %s; file %s (%s)\n",
                in_megabytes(peak_memory()).c_str(), in_megabytes(static_cast<double>(model.weight_bytes())).c_str(),
                in_megabytes(static_cast<double>(model.kv_bytes())).c_str(),
                in_megabytes(static_cast<double>(file.bytes().size())).c_str(),
                file.access() == ts::file_access::map ? "mapped" : "copied");
}

void print_setting(llama<backend> const& model, backend const& exec) {
    llama_options const& o = model.options();
    std::printf("ran             %s, %lld thread%s, activations %s\n", backend::arch_type::name,
                static_cast<long long>(exec.parallel().concurrency()), exec.parallel().concurrency() == 1 ? "" : "s",
                name_of(o.products));
    std::printf("KV cache        %s, room for %lld tokens, %.1f KB a token", model.kv_name().c_str(), static_cast<long long>(o.kv.tokens),
                static_cast<double>(model.kv_bytes()) / static_cast<double>(o.kv.tokens) / 1e3);
    if (o.kv.evict == eviction::window)
        std::printf("; keeps at least the first %lld and the last %lld tokens", static_cast<long long>(o.kv.sinks), static_cast<long long>(o.kv.window));
    if (o.kv.evict == eviction::heavy_hitters)
        std::printf("; keeps %lld tokens, half of them the last, half the most used", static_cast<long long>(o.kv.window));
    if (o.kv.evict == eviction::top_k)
        std::printf("; a step reads the first %lld, the last %lld and %lld more blocks of %lld tokens", static_cast<long long>(o.kv.sinks),
                    static_cast<long long>(o.kv.window / 2), static_cast<long long>(ts::ceil_div(o.kv.window - o.kv.window / 2, o.kv.block)),
                    static_cast<long long>(o.kv.block));
    if (o.context > model.sizes().context)
        std::printf("\ncontext         %lld positions, %lld of them trained, rotations scaled: %s", static_cast<long long>(o.context),
                    static_cast<long long>(model.sizes().context), name_of(o.rope));
    std::printf("\n");
}

/// Prompt and answer of random tokens, each from an empty context, until the median has settled.
void measure(llama<backend>& model, bench_sizes const& sizes) {
    ts::philox const random{1};
    std::vector<token_id> tokens;
    for (index_t i = 0; i < ts::maximum(sizes.prompt, sizes.answer); ++i)
        tokens.push_back(static_cast<token_id>(static_cast<index_t>(random.bits(static_cast<std::uint64_t>(i))) %
                                               model.vocabulary()));
    auto const timed = [&](char const* name, index_t before, index_t n, index_t at_once) {
        if (n == 0) return;
        std::vector<double> rates;
        stopwatch whole;
        // Six runs, if they take less than twenty seconds, and as many as four seconds hold.
        for (int run = 0; run < 21 && (run < 2 || whole.seconds() < (run < 6 ? 20 : 4)) && interrupted == 0; ++run) {
            if (before == 0) model.clear();
            stopwatch watch;
            for (index_t i = 0; i < n; i += at_once)
                model(std::span{tokens}.subspan(static_cast<std::size_t>(i), static_cast<std::size_t>(at_once)));
            if (run > 0) rates.push_back(static_cast<double>(n) / watch.seconds()); // the first warms up
            if (before > 0 && model.position() + n > model.context()) break;
        }
        if (rates.empty()) return;
        auto const [least, most] = std::minmax_element(rates.begin(), rates.end());
        std::string const behind = before > 0 ? ", behind " + std::to_string(before) + " tokens" : "";
        std::printf("%-8s %5lld  %9.2f tokens/s   (%zu runs, %.2f to %.2f)%s\n", name, static_cast<long long>(n),
                    median(rates), rates.size(), *least, *most, behind.c_str());
    };
    timed("prefill", 0, sizes.prompt, sizes.prompt);
    if (sizes.prompt > 0) timed("decode", sizes.prompt, sizes.answer, 1);
    timed("decode", 0, sizes.answer, 1);
}

struct timing {
    double load = 0;
    double prefill = 0;
    double first_token = 0; ///< since the program began
    double decode = 0;
    std::size_t prompt_tokens = 0;
    std::size_t decoded_tokens = 0; ///< steps of the model
};

/// The one adapter as it is; several, or one with a weight, as the one they are together.
ts::peft::adapter const& combine(options const& o, std::vector<ts::peft::adapter> const& adapters,
                                 std::optional<ts::peft::adapter>& together) {
    if (adapters.size() == 1 && o.adapters[0].weight == 1) return adapters[0];
    std::vector<ts::peft::weighted> list;
    for (std::size_t i = 0; i < adapters.size(); ++i) list.emplace_back(adapters[i], o.adapters[i].weight);
    return together.emplace(ts::peft::stack(list));
}

/// The file in the folder that holds this model's weights as this machine reads them.
std::string cache_path(options const& o, backend const& exec, ts::mapped_file const& model) {
    return *o.cache + "/" + ts::placed_cache_name(exec, ts::content_of(model.bytes(), ts::content_check::sampled));
}

/// Writes what the cache does not hold, and says what came from it.
void print_cache(ts::placed_cache& cache, timing const& t) {
    ts::placed_cache_report const report = cache.report();
    stopwatch watch;
    index_t const written = cache.save();
    std::printf("loading         %.3f s; placed weights: %lld of %lld matrices found", t.load, static_cast<long long>(report.found),
                static_cast<long long>(report.found + report.packed));
    if (report.state == ts::placed_cache_state::stale) std::printf(" (%s)", report.reason.c_str());
    if (written > 0)
        std::printf("; %s written in %.3f s", in_megabytes(static_cast<double>(written)).c_str(), watch.seconds());
    std::printf("\ncache           %s\n", cache.path().c_str());
}

/// Prints the answer while it is made.
template <class Model>
void answer(Model& model, backend const& exec, tokenizer const& words, std::vector<token_id> const& prompt,
            options const& o, stopwatch const& since_start, timing& t) {
    token_id const end = o.raw ? words.end_token() : chat_template::end_of_turn(words);
    ts::sampler const choose{o.choice};
    utf8_stream text;
    stopwatch prefill;
    std::span<float const> logits = model(prompt);
    t.prefill = prefill.seconds();
    t.prompt_tokens = prompt.size();
    stopwatch decode;
    for (index_t i = 0; i < o.length && interrupted == 0; ++i) {
        ts::vector_view<float const> const scores{logits.data(), static_cast<index_t>(logits.size())};
        auto const next = static_cast<token_id>(choose(exec, scores, static_cast<std::uint64_t>(i)));
        if (i == 0) t.first_token = since_start.seconds();
        if (next == end || next == words.end_token()) break;
        std::fputs(text.push(words.bytes(next)).c_str(), stdout);
        std::fflush(stdout);
        if (i + 1 == o.length) break;
        logits = model({&next, 1});
        ++t.decoded_tokens;
    }
    t.decode = decode.seconds();
    std::printf("%s\n", text.finish().c_str());
}

void print_rates(timing const& t) {
    auto const rate = [](std::size_t n, double s) { return n == 0 || s <= 0 ? 0.0 : static_cast<double>(n) / s; };
    std::printf("\nprefill         %zu tokens, %.1f tokens/s\n", t.prompt_tokens, rate(t.prompt_tokens, t.prefill));
    std::printf("decode          %zu tokens, %.1f tokens/s\n", t.decoded_tokens, rate(t.decoded_tokens, t.decode));
    if (t.first_token > 0) std::printf("first token     after %.3f s, of which loading %.3f s\n", t.first_token, t.load);
}

/// The answer of a CUDA device; the processor draws the tokens.
int run_on_device([[maybe_unused]] options const& o, [[maybe_unused]] backend const& exec, [[maybe_unused]] ts::gguf::file const& file,
                  [[maybe_unused]] tokenizer const& words, [[maybe_unused]] std::vector<token_id> const& prompt,
                  [[maybe_unused]] stopwatch const& since_start) {
#if defined(TESSERA_GENERATE_CUDA)
    index_t const context = ts::minimum(static_cast<index_t>(prompt.size()) + o.length, read_hyperparameters(file).context);
    if (static_cast<index_t>(prompt.size()) > context) throw usage_error{"the prompt is longer than the model's context"};
    cuda_model model{file, {.context = context, .chunk = o.chunk}};
    timing t;
    t.load = since_start.seconds();
    options limited = o;
    limited.length = ts::minimum(o.length, context - static_cast<index_t>(prompt.size()) + 1);
    answer(model, exec, words, prompt, limited, since_start, t);
    print_rates(t);
    std::printf("memory          on the device: weights %s, KV cache %s\n", in_megabytes(static_cast<double>(model.weight_bytes())).c_str(),
                in_megabytes(static_cast<double>(model.kv_bytes())).c_str());
    std::printf("ran             on a CUDA device, activations float32, KV cache fp16\n");
    return 0;
#else
    throw usage_error{"--backend cuda: the program is not compiled for CUDA (TESSERA_CUDA)"};
#endif
}

int run(options const& o) {
    stopwatch const since_start;
    auto const exec = make_backend<backend>(o.threads);
    std::optional<temporary_file> synthetic;
    if (o.synthetic) {
        synthetic.emplace(write_synthetic());
        std::printf("This is a synthetic model of random weights: the text means nothing.\n\n");
    }
    std::string const path = synthetic ? synthetic->path() : o.model;
    ts::mapped_file const bytes{path, o.read ? ts::file_access::read : ts::file_access::map};
    ts::gguf::file const file = ts::gguf::parse(bytes.bytes(), path);
    tokenizer const words{file};
    std::vector<token_id> prompt;
    if (!o.bench) prompt = encode_prompt(o, file, words);
    if (o.on_device) return run_on_device(o, exec, file, words, prompt, since_start);

    llama_options settings;
    settings.products = o.products;
    settings.kv = o.kv;
    settings.rope = o.rope;
    settings.chunk = o.chunk;
    std::vector<ts::peft::adapter> adapters;
    for (adapter_choice const& a : o.adapters) adapters.push_back(ts::peft::read(a.folder));
    std::optional<ts::peft::adapter> together;
    if (!adapters.empty()) settings.adapter = &combine(o, adapters, together);
    index_t const trained = read_hyperparameters(file).context;
    index_t const limit = o.context > 0 ? o.context : trained;
    // The measurement decodes twice behind the prompt.
    index_t const wanted = o.bench ? ts::maximum(o.bench->prompt + 2 * o.bench->answer, 1)
                                   : static_cast<index_t>(prompt.size()) + o.length;
    if (static_cast<index_t>(prompt.size()) > limit || (o.bench && wanted > limit))
        throw usage_error{"the text has " + std::to_string(o.bench ? wanted : static_cast<index_t>(prompt.size())) +
                          " tokens, the context " + std::to_string(limit) + "; --context makes it longer"};
    settings.context = o.context > 0 ? o.context : ts::minimum(wanted, limit);
    std::optional<ts::placed_cache> cache;
    if (o.cache) settings.arena = &cache.emplace(cache_path(o, exec, bytes), ts::placed_cache_options{
                                      .source = o.cache_check, .panels = o.cache_check,
                                      .access = o.read ? ts::file_access::read : ts::file_access::map});
    llama<backend> model{exec, file, settings};
    if (static_cast<std::size_t>(model.vocabulary()) != words.size())
        ts::detail::raise<ts::format_error>(path + ": the vocabulary has " + std::to_string(words.size()) +
                                            " tokens, the embedding " + std::to_string(model.vocabulary()));
    timing t;
    t.load = since_start.seconds();
    if (o.bench) {
        measure(model, *o.bench);
    } else {
        options limited = o;
        limited.length = ts::minimum(o.length, settings.context - static_cast<index_t>(prompt.size()) + 1);
        answer(model, exec, words, prompt, limited, since_start, t);
        print_rates(t);
    }
    print_memory(model, bytes);
    print_setting(model, exec);
    if (cache) print_cache(*cache, t);
    for (std::size_t i = 0; i < adapters.size(); ++i)
        std::printf("adapter         %s, %zu matrices, %s, times %g\n", o.adapters[i].folder.c_str(), adapters[i].modules.size(),
                    adapters[i].config.use_dora ? "DoRA" : "LoRA", static_cast<double>(o.adapters[i].weight));
    if (o.synthetic) std::printf("model           synthetic, random weights\n");
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    std::signal(SIGINT, interrupt);
    try {
        options const o = parse_options({argv + 1, static_cast<std::size_t>(argc > 0 ? argc - 1 : 0)});
        if (o.help) {
            std::fputs(std::string{usage}.c_str(), stdout);
            return 0;
        }
        return run(o);
    } catch (usage_error const& e) {
        std::fprintf(stderr, "generate: %s (see --help)\n", e.what());
        return 2;
    } catch (std::bad_alloc const&) {
        std::fprintf(stderr, "generate: not enough memory\n");
        return 1;
    } catch (std::exception const& e) {
        std::fprintf(stderr, "generate: %s\n", e.what());
        return 1;
    }
}
