// SPDX-License-Identifier: MIT
#include "table.hpp"

#include "plot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

namespace compress {

namespace {

std::string format(char const* pattern, double value) {
    char text[64];
    std::snprintf(text, sizeof text, pattern, value);
    return text;
}

bool has_text(table const& t) {
    return !t.rows.empty() && t.rows[0].text.has_value(); // all or none
}

struct column {
    std::string name;
    std::vector<std::string> cells;
};

std::vector<column> columns_of(table const& t) {
    std::vector<column> out;
    auto const add = [&](char const* name, auto const& cell) {
        column c{name, {}};
        for (result const& r : t.rows) c.cells.push_back(cell(r));
        out.push_back(std::move(c));
    };
    auto const megabytes = [](index_t bytes) { return format("%.1f", static_cast<double>(bytes) / 1e6); };
    add("scheme", [](result const& r) { return r.name; });
    if (has_text(t)) add("x", [](result const& r) { return std::string{name_of(r.x)}; });
    add("bits per weight", [](result const& r) { return format("%.3f", r.error.bits()); });
    add("MB", [&](result const& r) { return megabytes(r.error.bytes); });
    if (has_text(t)) add("MB placed", [&](result const& r) { return megabytes(r.placed_bytes); });
    add("SNR dB", [](result const& r) { return r.error.noise == 0 ? "exact" : format("%.2f", r.error.snr()); });
    if (!has_text(t)) {
        add("largest error", [](result const& r) { return format("%.2e", r.error.largest); });
        return out;
    }
    add("KL, mean", [](result const& r) { return r.text->divergence == 0 ? "0" : format("%.2e", r.text->divergence); });
    add("same first choice", [](result const& r) { return format("%.1f %%", 100 * r.text->agreement); });
    add("tokens/s", [](result const& r) { return format("%.0f", r.tokens_per_second); });
    return out;
}

std::string quoted(std::string const& text) {
    std::string out = "\"";
    for (char const c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (static_cast<unsigned char>(c) < 0x20)
            out += ' ';
        else
            out += c;
    }
    return out + "\"";
}

/// JSON has no infinity.
std::string number(double value) { return std::isfinite(value) ? format("%.9g", value) : "null"; }

std::string strings(std::vector<std::string> const& all) {
    std::string out;
    for (std::string const& s : all) out += (out.empty() ? "" : ", ") + quoted(s);
    return "[" + out + "]";
}

void write_file(std::string const& path, std::string const& text) {
    std::FILE* const out = std::fopen(path.c_str(), "wb");
    bool const written = out != nullptr && std::fwrite(text.data(), 1, text.size(), out) == text.size();
    if ((out != nullptr && std::fclose(out) != 0) || !written)
        ts::detail::raise<ts::format_error>(path + ": cannot be written");
}

} // namespace

std::string markdown(table const& t) {
    std::string out = "# " + t.title + "\n\n";
    for (std::string const& line : t.setting) out += line + "\n";
    out += "\n";
    std::vector<column> const columns = columns_of(t);
    auto const width = [](column const& c) {
        std::size_t most = c.name.size();
        for (std::string const& cell : c.cells) most = std::max(most, cell.size());
        return most;
    };
    auto const line = [&](auto const& cell) {
        for (std::size_t i = 0; i < columns.size(); ++i) {
            std::string const text = cell(columns[i]);
            std::string const space(width(columns[i]) - std::min(width(columns[i]), text.size()), ' ');
            out += i < 1 ? "| " + text + space + " " : "| " + space + text + " ";
        }
        out += "|\n";
    };
    line([](column const& c) { return c.name; });
    for (std::size_t i = 0; i < columns.size(); ++i)
        out += "|" + std::string(width(columns[i]) + (i < 1 ? 2 : 1), '-') + (i < 1 ? "" : ":"); // numbers to the right
    out += "|\n";
    for (std::size_t r = 0; r < t.rows.size(); ++r) line([&](column const& c) { return c.cells[r]; });
    if (!t.notes.empty()) out += "\n";
    for (std::string const& note : t.notes) out += "* " + note + "\n";
    return out;
}

std::string json(table const& t) {
    std::string out = "{\n\"title\": " + quoted(t.title) + ",\n\"setting\": " + strings(t.setting);
    out += ",\n\"notes\": " + strings(t.notes) + ",\n\"rows\": [";
    for (std::size_t i = 0; i < t.rows.size(); ++i) {
        result const& r = t.rows[i];
        out += i == 0 ? "\n" : ",\n";
        out += "{\"scheme\": " + quoted(r.name) + ", \"family\": " + quoted(name_of(r.kind));
        out += ", \"x\": " + quoted(name_of(r.x));
        out += ", \"weights\": " + std::to_string(r.error.count) + ", \"bytes\": " + std::to_string(r.error.bytes);
        out += ", \"bits_per_weight\": " + number(r.error.bits()) + ", \"snr_db\": " + number(r.error.snr());
        out += ", \"largest_error\": " + number(r.error.largest);
        if (r.text)
            out += ", \"placed_bytes\": " + std::to_string(r.placed_bytes) + ", \"kl_mean\": " + number(r.text->divergence) +
                   ", \"kl_largest\": " + number(r.text->largest) + ", \"same_first_choice\": " + number(r.text->agreement);
        if (r.tokens_per_second > 0) out += ", \"tokens_per_second\": " + number(r.tokens_per_second);
        out += "}";
    }
    return out + "\n]\n}\n";
}

std::string picture(table const& t) {
    plot p;
    p.title = t.title;
    for (std::size_t f = 0; f < families; ++f)
        if (has_text(t) || static_cast<family>(f) != family::stored) p.legend.push_back(name_of(static_cast<family>(f)));
    auto const point_of = [&](result const& r, double x, double y) {
        return point{x, y, r.name, static_cast<std::size_t>(r.kind), r.x != form::float32};
    };
    if (!has_text(t)) {
        axis const snr{"signal to noise of the weights, dB", false, true};
        panel size{"Error against size", {"bits per weight", true, false}, snr, {}};
        for (result const& r : t.rows) {
            size.points.push_back(point_of(r, r.error.bits(), r.error.snr()));
            size.points.back().is_square = false;
        }
        p.panels = {size};
        return svg(p);
    }
    p.disc = "x in float32";
    p.square = "x in int8";
    axis const kl{"KL from the stored weights with float32 x (itself 0)", true, false};
    panel size{"Quality against size", {"bits per weight of the linear layers", true, false}, kl, {}};
    panel speed{"Quality against speed", {"tokens per second, one by one", false, true}, kl, {}};
    for (result const& r : t.rows) {
        size.points.push_back(point_of(r, r.error.bits(), r.text->divergence));
        speed.points.push_back(point_of(r, r.tokens_per_second, r.text->divergence));
    }
    // Of one size and name the best has the label.
    for (point& a : size.points)
        for (point const& b : size.points)
            if (a.label == b.label && a.x == b.x && b.y > 0 && b.y < a.y) a.label.clear();
    // What is stored lies on top of what says the same.
    for (panel* const q : {&size, &speed})
        std::partition(q->points.begin(), q->points.end(), [](point const& a) { return a.colour != 0; });
    p.panels = {size, speed};
    return svg(p);
}

void check_writable(std::string const& folder) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    write_file(folder + "/compress.md", {});
}

void write(table const& t, std::string const& folder) {
    write_file(folder + "/compress.md", markdown(t));
    write_file(folder + "/compress.json", json(t));
    write_file(folder + "/compress.svg", picture(t));
}

} // namespace compress
