// SPDX-License-Identifier: MIT
/// @file
/// What formats of the KV cache cost and bring: bits, divergence of the next-token distribution, tokens a second behind a long text.
/// Exit codes: 0 done, 1 the model cannot be run, 2 wrong arguments.

#include "../compress/divergence.hpp"
#include "../compress/plot.hpp"
#include "../compress/progress.hpp"
#include "../compress/text.hpp"
#include "../generate/arguments.hpp"
#include "../generate/llama.hpp"
#include "../generate/report.hpp"
#include "../generate/synthetic.hpp"
#include "../generate/tokenizer.hpp"

#include <tessera/storage/mapped_file.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace {

using namespace generate;

constexpr std::string_view usage = R"(usage: kv_formats [options]

Runs a model with its KV cache in each format, and says what that costs and brings: bits a number, divergence of the next-token
distribution from that of a float32 cache over a text, tokens a second behind a long text. Writes kv_formats.md and kv_formats.svg.

  --model PATH     GGUF file of the llama architecture; default: SmolLM2-135M-Instruct.Q4_1.gguf in $XDG_CACHE_HOME/tessera or
                   ~/.cache/tessera
  --synthetic      a small random model instead: shows that it runs, the figures mean nothing
  --text PATH      the text to judge on (UTF-8; its first 1024 tokens); default: one of our own
  --only K,V       beside float32 this pair alone, or K for both, of the formats that --kv of generate takes; may be given again
  --behind N       tokens in the cache where speed is measured (4096)
  --quick          a few formats, the beginning of the text, 512 tokens in the cache, short measurements
  --output FOLDER  where the files go (the current folder)
  --threads N      default: as many as OpenMP takes
  --help
)";

struct options {
    std::string model = default_model_path();
    std::optional<std::string> text;
    std::vector<std::string> only;
    std::string output = ".";
    index_t behind = 0; ///< 0: by `quick`
    int threads = 0;
    bool synthetic = false;
    bool quick = false;
    bool help = false;
};

/// The text, if it names formats.
std::string checked_formats(std::string text) {
    try {
        ts::standard_kv_formats::parse(text);
    } catch (ts::unsupported_error const& e) {
        throw usage_error{"--only: " + std::string{e.what()}};
    }
    return text;
}

options parse(std::span<char const* const> arguments) {
    options o;
    bool is_model = false;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        std::string_view const argument = arguments[i];
        std::size_t const equals = argument.starts_with("--") ? argument.find('=') : std::string_view::npos;
        std::string_view const name = argument.substr(0, equals);
        bool took_value = false;
        auto const value = [&]() -> std::string {
            took_value = true;
            bool const is_next = equals == std::string_view::npos;
            if (is_next && (i + 1 == arguments.size() || std::string_view{arguments[i + 1]}.starts_with("--")))
                throw usage_error{std::string{name} + " wants a value"};
            std::string const text{is_next ? std::string_view{arguments[++i]} : argument.substr(equals + 1)};
            if (text.empty()) throw usage_error{std::string{name} + " wants a value that is not empty"};
            return text;
        };
        if (name == "--model") o.model = value(), is_model = true;
        else if (name == "--text") o.text = value();
        else if (name == "--only") o.only.push_back(checked_formats(value()));
        else if (name == "--behind") o.behind = generate::detail::number<index_t>(name, value(), 1, 1 << 20);
        else if (name == "--output") o.output = value();
        else if (name == "--threads") o.threads = generate::detail::number<int>(name, value(), 1, 1024);
        else if (name == "--synthetic") o.synthetic = true;
        else if (name == "--quick") o.quick = true;
        else if (name == "--help" || name == "-h") o.help = true;
        else throw usage_error{"unknown option '" + std::string{argument} + "'"};
        if (equals != std::string_view::npos && !took_value) throw usage_error{std::string{name} + " takes no value"};
    }
    if (o.synthetic && is_model && !o.help) throw usage_error{"--model has no effect: --synthetic is another model"};
    return o;
}

/// What colours mean.
enum class family { floats, small_floats, integers, tables, mixed };
constexpr char const* family_names[] = {"16 bits and more", "small floats", "integers", "tables", "keys and values differ"};

struct row {
    std::string name; ///< as --kv of examples/generate takes it
    family kind;
    bool is_quick = false;
    double bits = 0; ///< a number, with its share of scales
    double kilobytes = 0; ///< a token
    double divergence = 0;
    double largest = 0;
    double agreement = 0;
    double tokens_per_second = 0;
};

/// float32 first: the truth of all others.
std::vector<row> all_rows() {
    return {{"fp32", family::floats, true},
            {"fp16", family::floats, true},
            {"bf16", family::floats},
            {"int8", family::integers, true},
            {"int8_g32", family::integers},
            {"e4m3", family::small_floats, true},
            {"e5m2", family::small_floats},
            {"int4", family::integers},
            {"int4_g64", family::integers},
            {"int4_g32", family::integers, true},
            {"uint4_g32", family::integers},
            {"nf4_g64", family::tables},
            {"e2m1_g32", family::small_floats},
            {"uint3_g32", family::integers},
            {"uint2_g32", family::integers},
            {"fp16,int8", family::mixed},
            {"int8,int4_g32", family::mixed, true},
            {"int4_g32,int8", family::mixed},
            {"int8,uint2_g32", family::mixed},
            {"uint4_g32,uint2_g32", family::mixed}};
}

std::string number(char const* pattern, double value) {
    char text[64];
    std::snprintf(text, sizeof text, pattern, value);
    return text;
}

/// One model after the other, each with a cache in another format.
class judge {
public:
    judge(backend const& exec, ts::gguf::file const& file, std::vector<token_id> const& text, std::vector<token_id> const& context, bool is_quick)
        : exec_{exec}, file_{file}, text_{text}, context_{context}, runs_{is_quick ? 3 : 5}, decoded_{is_quick ? 8 : 16} {}

    template <class Show>
    void measure(row& r, Show const& show) {
        llama_options options;
        options.kv.formats = r.name;
        options.products = activations::exact; // so that the cache alone differs
        options.context = static_cast<index_t>(text_.size());
        {
            llama<backend> model{exec_, file_, options};
            r.kilobytes = static_cast<double>(model.kv_bytes()) / static_cast<double>(options.context) / 1e3;
            hyperparameters const& s = model.sizes();
            r.bits = 8e3 * r.kilobytes / static_cast<double>(2 * s.layers * s.kv_heads * s.head_dim);
            compare(r, model, show);
        }
        options.products = activations::automatic;
        options.context = static_cast<index_t>(context_.size()) + (runs_ + 1) * decoded_;
        llama<backend> model{exec_, file_, options};
        for (std::size_t at = 0; at < context_.size(); at += 1024) {
            model(std::span{context_}.subspan(at, std::min<std::size_t>(1024, context_.size() - at)));
            show(0.5 + 0.4 * static_cast<double>(at) / static_cast<double>(context_.size()));
        }
        std::vector<double> rates;
        for (index_t run = 0; run <= runs_; ++run) {
            stopwatch watch;
            for (index_t t = 0; t < decoded_; ++t) model(std::span{context_}.subspan(static_cast<std::size_t>(t) % context_.size(), 1));
            if (run > 0) rates.push_back(static_cast<double>(decoded_) / watch.seconds()); // the first warms up
        }
        r.tokens_per_second = median(rates);
    }

private:
    /// In chunks; the first row's logits are kept.
    template <class Show>
    void compare(row& r, llama<backend>& model, Show const& show) {
        bool const is_truth = truth_.empty();
        auto const vocabulary = static_cast<std::size_t>(model.vocabulary());
        if (is_truth) truth_.reserve(text_.size() * vocabulary);
        std::size_t same = 0;
        for (std::size_t at = 0; at < text_.size(); at += 128) {
            std::size_t const n = std::min<std::size_t>(128, text_.size() - at);
            auto const logits = model.forward(std::span{text_}.subspan(at, n), static_cast<index_t>(n));
            if (is_truth) truth_.insert(truth_.end(), logits.data_handle(), logits.data_handle() + logits.size());
            for (std::size_t i = 0; i < n; ++i) {
                std::span<float const> const p{truth_.data() + (at + i) * vocabulary, vocabulary};
                std::span<float const> const q{&logits(static_cast<index_t>(i), 0), vocabulary};
                double const kl = compress::divergence(p, q);
                r.divergence += kl / static_cast<double>(text_.size());
                r.largest = std::max(r.largest, kl);
                same += compress::most_probable(p) == compress::most_probable(q);
            }
            show(0.5 * static_cast<double>(at) / static_cast<double>(text_.size()));
        }
        r.agreement = static_cast<double>(same) / static_cast<double>(text_.size());
    }

    backend exec_;
    ts::gguf::file const& file_;
    std::vector<token_id> text_, context_;
    index_t runs_, decoded_;
    std::vector<float> truth_; // (tokens, vocabulary)
};

std::string table(std::vector<row> const& rows) {
    std::string out = "| keys, values        |   bits | KB a token | KL, mean | KL, largest | same first choice | tokens/s |\n"
                      "|---------------------|-------:|-----------:|---------:|------------:|------------------:|---------:|\n";
    for (row const& r : rows) {
        char line[256];
        std::snprintf(line, sizeof line, "| %-19s | %6.3f | %10.1f | %8.1e | %11.1e | %16.1f%% | %8.1f |\n", r.name.c_str(), r.bits,
                      r.kilobytes, r.divergence, r.largest, 100 * r.agreement, r.tokens_per_second);
        out += line;
    }
    return out;
}

std::string picture(std::vector<row> const& rows, std::string const& title, index_t behind) {
    compress::plot p;
    p.title = title;
    p.legend.assign(std::begin(family_names), std::end(family_names));
    compress::axis const kl{"KL from a float32 cache", true, false};
    compress::panel size{"Quality against size", {"bits a number of the KV cache, scales included", true, false}, kl, {}};
    compress::panel speed{"Quality against speed",
                          {"tokens a second behind " + std::to_string(behind) + " tokens", false, true}, kl, {}};
    for (row const& r : rows) {
        size.points.push_back({r.bits, r.divergence, r.name, static_cast<std::size_t>(r.kind)});
        speed.points.push_back({r.tokens_per_second, r.divergence, r.name, static_cast<std::size_t>(r.kind)});
    }
    p.panels = {size, speed};
    return compress::svg(p);
}

void write_file(std::string const& path, std::string const& text) {
    std::FILE* const out = std::fopen(path.c_str(), "wb");
    bool const written = out != nullptr && std::fwrite(text.data(), 1, text.size(), out) == text.size();
    if ((out != nullptr && std::fclose(out) != 0) || !written) ts::detail::raise<ts::format_error>(path + ": cannot be written");
}

std::vector<token_id> tokens_of(options const& o, tokenizer const& words, std::size_t most) {
    std::string text{compress::built_in_text};
    if (o.text) {
        ts::mapped_file const bytes{*o.text, ts::file_access::read};
        text.assign(reinterpret_cast<char const*>(bytes.bytes().data()), bytes.bytes().size());
    }
    std::vector<token_id> tokens = words.encode(text);
    if (tokens.size() < 2) throw usage_error{"the text has " + std::to_string(tokens.size()) + " tokens, expected 2 or more"};
    if (tokens.size() > most) tokens.resize(most);
    return tokens;
}

/// Before the work: that the folder takes files, and leaves those there as they are.
void check_writable(std::string const& folder) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    std::FILE* const out = std::fopen((folder + "/kv_formats.md").c_str(), "ab");
    if (out == nullptr) ts::detail::raise<ts::format_error>(folder + "/kv_formats.md: cannot be written");
    std::fclose(out);
}

int run(options const& o) {
    auto const exec = make_backend<backend>(o.threads);
    std::vector<std::byte> const written = o.synthetic ? write_synthetic() : std::vector<std::byte>{};
    ts::buffer<std::byte> synthetic{static_cast<index_t>(written.size())}; // aligned, as a file is
    if (o.synthetic) std::memcpy(synthetic.data(), written.data(), written.size());
    ts::mapped_file const mapped = o.synthetic ? ts::mapped_file{} : ts::mapped_file{o.model};
    std::span<std::byte const> const own{synthetic.data(), written.size()};
    ts::gguf::file const file = ts::gguf::parse(o.synthetic ? own : mapped.bytes(), o.synthetic ? "synthetic" : o.model);
    tokenizer const words{file};
    index_t const trained = read_hyperparameters(file).context;
    std::vector<token_id> const text = tokens_of(o, words, std::min<std::size_t>(o.quick ? 128 : 1024, static_cast<std::size_t>(trained)));

    std::vector<row> rows = all_rows();
    if (!o.only.empty()) {
        std::vector<row> named{rows[0]};
        for (std::string const& name : o.only) {
            auto const known = std::find_if(rows.begin(), rows.end(), [&](row const& r) { return r.name == name; });
            if (known != rows.begin()) named.push_back(known != rows.end() ? *known : row{name, family::mixed});
        }
        rows = named;
    } else if (o.quick) {
        std::erase_if(rows, [](row const& r) { return !r.is_quick; });
    }
    index_t const behind = o.behind != 0 ? o.behind : o.quick ? 512 : 4096;
    std::vector<token_id> context;
    for (index_t i = 0; i < behind; ++i) context.push_back(text[static_cast<std::size_t>(i) % text.size()]);

    check_writable(o.output);
    judge all{exec, file, text, context, o.quick};
    compress::progress bar{rows.size()};
    for (row& r : rows) {
        bar.begin(r.name);
        all.measure(r, [&](double share) { bar.show(share); });
        bar.end("KL " + number("%.1e", r.divergence) + ", " + number("%.1f tokens/s", r.tokens_per_second));
    }
    std::string const title = (o.synthetic ? std::string{"a synthetic model"} : o.model.substr(o.model.find_last_of('/') + 1)) +
                              ": its KV cache in every format";
    std::string out = "# " + title + "\n\n" + table(rows) + "\nKL: from the same model with a float32 cache, over " +
                      std::to_string(text.size()) + " tokens, the whole vocabulary, float32 activations. tokens/s: one by one behind " +
                      std::to_string(behind) + " tokens; " + std::string{backend::arch_type::name} + ", " +
                      std::to_string(exec.parallel().concurrency()) + (exec.parallel().concurrency() == 1 ? " thread.\n" : " threads.\n");
    if (o.synthetic) out += "The weights are random: divergences mean nothing here but that every format runs.\n";
    std::fputs(out.c_str(), stdout);
    write_file(o.output + "/kv_formats.md", out);
    write_file(o.output + "/kv_formats.svg", picture(rows, title, behind));
    std::printf("\nwritten: %s/kv_formats.md, kv_formats.svg\n", o.output.c_str());
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        options const o = parse({argv + 1, static_cast<std::size_t>(argc > 0 ? argc - 1 : 0)});
        if (o.help) {
            std::fputs(std::string{usage}.c_str(), stdout);
            return 0;
        }
        return run(o);
    } catch (usage_error const& e) {
        std::fprintf(stderr, "kv_formats: %s (see --help)\n", e.what());
        return 2;
    } catch (std::bad_alloc const&) {
        std::fprintf(stderr, "kv_formats: not enough memory\n");
        return 1;
    } catch (std::exception const& e) {
        std::fprintf(stderr, "kv_formats: %s\n", e.what());
        return 1;
    }
}
