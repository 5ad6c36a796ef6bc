// SPDX-License-Identifier: MIT
/// @file
/// What each way of storing weights costs and brings: see options.hpp for the arguments, scheme_list.hpp for the schemes.
/// Exit codes: 0 done, 1 the model cannot be converted, 2 wrong arguments.

#include "../generate/synthetic.hpp"
#include "../generate/tokenizer.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "table.hpp"
#include "text.hpp"
#include "weights.hpp"

#include <tessera/storage/mapped_file.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

namespace {

using namespace compress;

std::string file_name(std::string const& path) { return path.substr(path.find_last_of('/') + 1); }

std::string number(char const* pattern, double value) {
    char text[64];
    std::snprintf(text, sizeof text, pattern, value);
    return text;
}

std::string in_megabytes(double bytes) { return number("%.1f MB", bytes / 1e6); }

std::string machine(backend const& exec) {
    index_t const threads = exec.parallel().concurrency();
    return std::string{backend::arch_type::name} + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
}

/// The schemes that the options name.
std::vector<scheme> named_schemes(options const& o) {
    std::vector<scheme> out = all_schemes();
    std::erase_if(out, [&](scheme const& s) {
        if (o.only.empty()) return o.quick && !s.is_quick;
        return std::none_of(o.only.begin(), o.only.end(),
                            [&](std::string const& part) { return s.name.find(part) != std::string::npos; });
    });
    if (out.empty()) throw usage_error{"--only names nothing that is in a scheme's name"};
    return out;
}

/// Without those that do not fit, which a note names.
template <class Fits>
void keep_fitting(std::vector<scheme>& all, Fits const& fits, std::vector<std::string>& notes) {
    std::string refused;
    for (scheme const& s : all)
        if (!fits(s) && refused.find(s.name) == std::string::npos) refused += (refused.empty() ? "" : ", ") + s.name;
    std::erase_if(all, [&](scheme const& s) { return !fits(s); });
    if (!refused.empty()) notes.push_back("Left out: " + refused + ", whose blocks do not divide the rows of this model.");
}

table convert_weights(options const& o, backend const& exec) {
    ts::mapped_file const bytes{*o.weights};
    ts::safetensors::file const file = ts::safetensors::parse(bytes.bytes(), *o.weights);
    weight_file const weights{exec, file};
    table t;
    t.title = file_name(*o.weights) + ": its linear weights in every scheme";
    t.setting = {number("%.2f", static_cast<double>(weights.weights()) / 1e6) + " M weights in " +
                 std::to_string(weights.matrices()) + " matrices; " + std::to_string(weights.others()) +
                 " of embeddings are left out. No divergence and no speed: no program here runs the model."};
    std::vector<scheme> all = named_schemes(o);
    keep_fitting(all, [&](scheme const& s) { return weights.fits(s); }, t.notes);
    // The form of x changes nothing here.
    auto const same = [](scheme const& a, scheme const& b) { return a.name == b.name; };
    all.erase(std::unique(all.begin(), all.end(), same), all.end());
    progress bar{all.size()};
    for (scheme const& s : all) {
        bar.begin(s.name);
        t.rows.push_back(weights.converted(s, [&](double share) { bar.show(share); }));
        bar.end("SNR " + number("%.2f dB", t.rows.back().error.snr()));
    }
    return t;
}

std::string read_text(options const& o) {
    if (!o.text) return std::string{built_in_text};
    ts::mapped_file const bytes{*o.text, ts::file_access::read};
    return {reinterpret_cast<char const*>(bytes.bytes().data()), bytes.bytes().size()};
}

table convert_model(options const& o, backend const& exec) {
    std::vector<std::byte> const written = o.synthetic ? generate::write_synthetic() : std::vector<std::byte>{};
    ts::buffer<std::byte> synthetic{static_cast<index_t>(written.size())}; // aligned, as a file is
    if (o.synthetic) std::memcpy(synthetic.data(), written.data(), written.size());
    ts::mapped_file const mapped = o.synthetic ? ts::mapped_file{} : ts::mapped_file{o.model};
    std::string const name = o.synthetic ? "synthetic model of random weights" : file_name(o.model);
    std::span<std::byte const> const own{synthetic.data(), written.size()};
    std::span<std::byte const> const bytes = o.synthetic ? own : mapped.bytes();
    ts::gguf::file const file = ts::gguf::parse(bytes, o.synthetic ? name : o.model);

    generate::tokenizer const words{file};
    std::vector<token_id> text = words.encode(read_text(o));
    std::size_t const most = std::min(static_cast<std::size_t>(generate::read_hyperparameters(file).context),
                                      std::size_t{o.quick ? 128u : 1024u});
    if (text.size() > most) text.resize(most);
    if (text.size() < 2) throw usage_error{"the text has " + std::to_string(text.size()) + " tokens, expected 2 or more"};

    int const runs = o.quick ? 3 : 5;
    index_t const decoded = o.quick ? 16 : 24;
    judge all{exec, file, text, runs, decoded};
    std::vector<scheme> schemes = named_schemes(o);
    table t;
    t.title = name + ": its linear layers in every scheme";
    std::vector<std::string> notes;
    progress bar{schemes.size() + 2};
    auto const add = [&](std::string const& what, form x, auto const& measure) {
        bar.begin(what + ", x " + name_of(x));
        t.rows.push_back(measure([&](double share) { bar.show(share); }));
        result const& r = t.rows.back();
        bar.end("KL " + number("%.2e", r.text->divergence) + ", " + number("%.0f tokens/s", r.tokens_per_second));
    };
    for (form const x : {form::float32, form::int8_per_32})
        add("as stored", x, [&](auto const& done) { return all.stored(x, done); });
    keep_fitting(schemes, [&](scheme const& s) { return all.fits(s); }, notes);
    bar.expect(schemes.size() + 2);
    for (scheme const& s : schemes)
        add(s.name, s.x, [&](auto const& done) { return all.converted(s, done); });

    t.setting = {
        number("%.1f", static_cast<double>(all.weights()) / 1e6) + " M weights in linear layers, stored as " + all.types() +
            ". The output matrix" + (all.is_tied() ? ", which is the embedding too," : "") + " stays as stored in every row (" +
            type_name(all.head().type) + ", " + in_megabytes(static_cast<double>(all.head().bytes.size())) +
            "); MB and bits do not count it.",
        "KL and first choice: against the stored weights with float32 x, " + std::to_string(text.size()) +
            " tokens, whole vocabulary. tokens/s: one by one, median of " + std::to_string(runs) + " runs of " +
            std::to_string(std::min(decoded, static_cast<index_t>(text.size()))) + " tokens; " + machine(exec) + "."};
    if (o.synthetic) t.setting.push_back("The weights are random: divergences mean nothing here but that every scheme runs.");
    t.notes = {"A row is one operator: x is what activations become in its products, for the divergence and for the speed. "
               "int8/32: a scale for 32 values, int8/token: for a row; the output matrix takes int8/32 in both.",
               "MB placed: as this machine reads them; 7-bit codes are placed as bytes."};
    t.notes.insert(t.notes.end(), notes.begin(), notes.end());
    return t;
}

int run(options const& o) {
    check_writable(o.output); // before the work
    auto const exec = generate::make_backend<backend>(o.threads);
    table const t = o.weights ? convert_weights(o, exec) : convert_model(o, exec);
    std::fputs(markdown(t).c_str(), stdout);
    write(t, o.output);
    std::printf("\nwritten: %s/compress.md, compress.json, compress.svg\n", o.output.c_str());
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        options const o = parse_options({argv + 1, static_cast<std::size_t>(argc > 0 ? argc - 1 : 0)});
        if (o.help) {
            std::fputs(std::string{usage}.c_str(), stdout);
            return 0;
        }
        return run(o);
    } catch (usage_error const& e) {
        std::fprintf(stderr, "compress: %s (see --help)\n", e.what());
        return 2;
    } catch (std::bad_alloc const&) {
        std::fprintf(stderr, "compress: not enough memory\n");
        return 1;
    } catch (std::exception const& e) {
        std::fprintf(stderr, "compress: %s\n", e.what());
        return 1;
    }
}
