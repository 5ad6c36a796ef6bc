// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A scatter plot with a Pareto front as an SVG file: linear or logarithmic axes, labels that avoid each other, nothing else.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {

struct point {
    double x = 0;
    double y = 0;
    std::string label; ///< may be empty
    std::size_t colour = 0; ///< index into a plot's legend
    bool is_square = false; ///< else a disc
};

struct axis {
    std::string title;
    bool is_log = false;
    bool larger_is_better = false;
};

/// A line through points, what theory says; its ends are where the axes end.
struct curve {
    std::string label;
    std::vector<std::pair<double, double>> points; ///< x ascending
};

struct panel {
    std::string title;
    axis x;
    axis y;
    std::vector<point> points; ///< those that an axis cannot show are left out
    std::vector<curve> curves = {};
};

struct plot {
    std::string title;
    std::vector<std::string> legend; ///< of colours, at most 5
    std::string disc;                ///< what the markers' shapes mean; empty: not shown
    std::string square;
    std::vector<panel> panels; ///< below each other
};

/// Indices of the points that no other beats in both directions, the best x first.
inline std::vector<std::size_t> pareto_front(panel const& p) {
    std::vector<std::size_t> order(p.points.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    auto const cost_x = [&](std::size_t i) { return p.x.larger_is_better ? -p.points[i].x : p.points[i].x; };
    auto const cost_y = [&](std::size_t i) { return p.y.larger_is_better ? -p.points[i].y : p.points[i].y; };
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return cost_x(a) != cost_x(b) ? cost_x(a) < cost_x(b) : cost_y(a) < cost_y(b);
    });
    std::vector<std::size_t> front;
    for (std::size_t const i : order)
        if (front.empty() || cost_y(i) < cost_y(front.back())) front.push_back(i);
    return front;
}

namespace detail {

inline constexpr double width = 920, panel_height = 540, header = 82;
inline constexpr double left = 66, right = 24, above = 34, below = 54;
inline constexpr double line = 11; // height of a label
inline constexpr char const* dashes = "fill=\"none\" stroke=\"#888\" stroke-width=\"1.6\" stroke-dasharray=\"5 3\"/>\n";
inline constexpr char const* colours[] = {"#222222", "#0072b2", "#e69f00", "#009e73", "#cc3311"};

inline std::string format(char const* pattern, double a, double b = 0, double c = 0, double d = 0) {
    char text[256];
    std::snprintf(text, sizeof text, pattern, a, b, c, d);
    return text;
}

inline std::string escaped(std::string const& text) {
    std::string out;
    for (char const c : text) out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
    return out;
}

inline std::string text_at(double x, double y, std::string const& text, char const* attributes = "") {
    return format("<text x=\"%.1f\" y=\"%.1f\"", x, y) + " " + attributes + ">" + escaped(text) + "</text>\n";
}

/// Of a label, about: its letters are those of the viewer's font.
inline double text_width(std::string const& text) {
    double sum = 0;
    for (char const c : text)
        sum += std::string_view{"filtj., "}.find(c) != std::string_view::npos ? 3.2
               : (c >= 'A' && c <= 'Z') || c == '%' || c == 'm'               ? 7.8
                                                                              : 5.9;
    return sum;
}

inline bool shows(axis const& a, double v) { return std::isfinite(v) && (!a.is_log || v > 0); }

/// From values to pixels, with marks at round numbers.
class scale {
public:
    scale(axis const& a, std::vector<double> const& values, double from, double to) : is_log_{a.is_log}, from_{from}, to_{to} {
        auto const [least, most] = std::minmax_element(values.begin(), values.end());
        low_ = values.empty() ? 1 : inner(*least);
        high_ = values.empty() ? 2 : inner(*most);
        double const room = std::max(0.06 * (high_ - low_), is_log_ ? 0.05 : 1e-9);
        low_ -= room;
        high_ += room;
    }
    double operator()(double v) const { return from_ + (inner(v) - low_) / (high_ - low_) * (to_ - from_); }

    /// 9 or fewer, but where the axis is logarithmic and short.
    std::vector<double> marks() const {
        std::vector<double> out;
        auto const add = [&](double v) {
            if (inner(v) >= low_ && inner(v) <= high_) out.push_back(v);
        };
        if (is_log_) {
            std::vector<double> const steps = high_ - low_ > 2.5   ? std::vector<double>{1}
                                              : high_ - low_ > 1.5 ? std::vector<double>{1, 3}
                                                                   : std::vector<double>{1, 2, 3, 4, 5, 6, 8};
            for (double decade = std::floor(low_); decade <= high_; ++decade)
                for (double const s : steps) add(s * std::pow(10, decade));
        } else {
            double step = std::pow(10, std::floor(std::log10((high_ - low_) / 4)));
            for (double const s : {2.0, 2.5, 2.0})
                if ((high_ - low_) / step > 9) step *= s;
            for (double v = std::ceil(low_ / step) * step; v <= high_; v += step) add(v);
        }
        return out;
    }

private:
    double inner(double v) const { return is_log_ ? std::log10(v) : v; }
    bool is_log_;
    double from_, to_, low_ = 0, high_ = 1;
};

struct box {
    double x0, y0, x1, y1;
    bool meets(box const& o) const { return x0 < o.x1 && o.x0 < x1 && y0 < o.y1 && o.y0 < y1; }
    bool is_inside(box const& o) const { return x0 >= o.x0 && x1 <= o.x1 && y0 >= o.y0 && y1 <= o.y1; }
};

/// Puts labels where there is room, near their points, the first ones best; a line leads to those that are far.
class labels {
public:
    explicit labels(box const& area) : area_{area} {}
    void avoid(box const& b) { hard_.push_back(b); }
    /// Unless there is no other place.
    void avoid_if_possible(box const& b) { soft_.push_back(b); }

    std::string place(double x, double y, std::string const& text) {
        for (bool const is_strict : {true, false})
            for (double radius = 8; radius < 130; radius *= 1.25)
                for (int const degrees : {0, 180, -30, 30, 150, 210, -50, 50, 130, 230, -70, 70, 110, 250, -90, 90}) {
                    spot const s{x, y, radius, degrees * 3.14159265358979 / 180, text_width(text)};
                    if (!s.text.is_inside(area_) || any(hard_, s.text) || (is_strict && any(soft_, s.text))) continue;
                    if (is_strict && s.is_far() && meets_labels(s)) continue;
                    return put(s, text);
                }
        return {}; // no room at all: the table has it
    }

private:
    /// A place for a label of some size: at a distance from its point, in a direction.
    struct spot {
        double x, y, radius, end_x, end_y, side;
        box text;
        spot(double from_x, double from_y, double distance, double angle, double size)
            : x{from_x}, y{from_y}, radius{distance}, end_x{x + distance * std::cos(angle)},
              end_y{y + distance * std::sin(angle)}, side{std::cos(angle)} {
            double const start = side > 0.3 ? end_x : side < -0.3 ? end_x - size : end_x - size / 2;
            text = {start - 1, end_y - line / 2, start + size + 1, end_y + line / 2};
        }
        bool is_far() const { return radius > 14; }
        /// Point of the leading line, 0 to 1.
        box along(double part) const {
            double const at_x = x + part * (end_x - x);
            double const at_y = y + part * (end_y - y);
            return {at_x - 1, at_y - 1, at_x + 1, at_y + 1};
        }
    };

    bool meets_labels(spot const& s) const {
        for (double part = 0.1; part < 1; part += 0.05)
            if (any(placed_, s.along(part))) return true;
        return false;
    }

    std::string put(spot const& s, std::string const& text) {
        hard_.push_back(s.text);
        placed_.push_back(s.text);
        char const* const anchor = s.side > 0.3    ? "font-size=\"10.5\""
                                   : s.side < -0.3 ? "font-size=\"10.5\" text-anchor=\"end\""
                                                   : "font-size=\"10.5\" text-anchor=\"middle\"";
        std::string const out = text_at(s.end_x, s.end_y + 3.5, text, anchor);
        if (!s.is_far()) return out;
        for (double part = 0.1; part < 1; part += 0.05) soft_.push_back(s.along(part));
        double const room = s.side > 0.3 ? -1 : s.side < -0.3 ? 1 : 0; // between the line and its text
        return format("<path d=\"M%.1f %.1fL%.1f %.1f\" ", s.x, s.y, s.end_x + room, s.end_y) +
               "stroke=\"#999\" stroke-width=\"0.7\"/>\n" + out;
    }

    static bool any(std::vector<box> const& all, box const& b) {
        return std::any_of(all.begin(), all.end(), [&](box const& o) { return o.meets(b); });
    }
    box area_;
    std::vector<box> hard_, soft_, placed_;
};

inline std::string marker(double x, double y, std::size_t colour, bool is_square) {
    std::string const end = std::string{" fill=\""} + colours[colour % 5] + "\" stroke=\"white\" stroke-width=\"0.8\"/>\n";
    if (is_square) return format("<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\"", x - 4, y - 4) + end;
    return format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"", x, y) + end;
}

inline std::string mark_text(double v) {
    if (v != 0 && (std::fabs(v) < 0.01 || std::fabs(v) >= 1e5)) return format("%.0e", v);
    return format("%.4g", v);
}

inline std::string draw(panel const& whole, double top) {
    panel p = whole;
    std::erase_if(p.points, [&](point const& q) { return !shows(p.x, q.x) || !shows(p.y, q.y); });
    box const area{left, top + above, width - right, top + panel_height - below};
    std::vector<double> xs, ys;
    for (point const& q : p.points) xs.push_back(q.x), ys.push_back(q.y);
    scale const x{p.x, xs, area.x0, area.x1};
    scale const y{p.y, ys, area.y1, area.y0};

    std::string out = text_at(left, top + above - 12, p.title, "font-size=\"14\" font-weight=\"bold\"");
    for (double const v : x.marks()) {
        out += format("<path d=\"M%.1f %.1fV%.1f\" stroke=\"#e4e4e4\"/>\n", x(v), area.y0, area.y1);
        out += text_at(x(v), area.y1 + 16, mark_text(v), "text-anchor=\"middle\" fill=\"#444\"");
    }
    for (double const v : y.marks()) {
        out += format("<path d=\"M%.1f %.1fH%.1f\" stroke=\"#e4e4e4\"/>\n", area.x0, y(v), area.x1);
        out += text_at(area.x0 - 6, y(v) + 4, mark_text(v), "text-anchor=\"end\" fill=\"#444\"");
    }
    out += format("<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#444\"/>\n", area.x0, area.y0, area.y1, area.x1);
    auto const title = [](axis const& a) { return a.title + (a.is_log ? ", log scale" : ""); };
    out += text_at((area.x0 + area.x1) / 2, area.y1 + 36, title(p.x), "text-anchor=\"middle\"");
    out += format("<text transform=\"translate(16 %.1f) rotate(-90)\" text-anchor=\"middle\">", (area.y0 + area.y1) / 2) +
           escaped(title(p.y)) + "</text>\n";

    labels place{area};
    for (curve const& drawn : p.curves) {
        std::string line;
        double end_x = 0, end_y = 0;
        for (auto const& [at_x, at_y] : drawn.points) {
            if (!shows(p.x, at_x) || !shows(p.y, at_y)) continue;
            double const to_x = x(at_x), to_y = y(at_y);
            if (to_x < area.x0 || to_x > area.x1 || to_y < area.y0 || to_y > area.y1) continue;
            line += format(line.empty() ? "M%.1f %.1f" : "L%.1f %.1f", end_x = to_x, end_y = to_y);
        }
        if (line.empty()) continue;
        out += "<path d=\"" + line + "\" fill=\"none\" stroke=\"#555\" stroke-width=\"1.2\"/>\n";
        out += text_at(end_x - 8, end_y - 2, drawn.label, "text-anchor=\"end\" font-style=\"italic\" fill=\"#555\"");
    }
    for (point const& q : p.points) place.avoid({x(q.x) - 5, y(q.y) - 5, x(q.x) + 5, y(q.y) + 5});
    std::vector<std::size_t> const front = pareto_front(p);
    std::string path;
    for (std::size_t i = 0; i < front.size(); ++i) {
        point const& q = p.points[front[i]];
        path += format(i == 0 ? "M%.1f %.1f" : "L%.1f %.1f", x(q.x), y(q.y));
        if (i == 0) continue;
        point const& before = p.points[front[i - 1]];
        for (double part = 0.05; part < 1; part += 0.05) {
            double const at_x = x(before.x) + part * (x(q.x) - x(before.x));
            double const at_y = y(before.y) + part * (y(q.y) - y(before.y));
            place.avoid_if_possible({at_x - 2, at_y - 2, at_x + 2, at_y + 2});
        }
    }
    if (!path.empty()) out += "<path d=\"" + path + "\" " + dashes;

    std::vector<std::size_t> order = front; // labels of the front first
    for (std::size_t i = 0; i < p.points.size(); ++i)
        if (std::find(front.begin(), front.end(), i) == front.end()) order.push_back(i);
    for (std::size_t const i : order)
        if (!p.points[i].label.empty()) out += place.place(x(p.points[i].x), y(p.points[i].y), p.points[i].label);
    for (point const& q : p.points) out += marker(x(q.x), y(q.y), q.colour, q.is_square);
    return out;
}

} // namespace detail

/// The picture as the text of an SVG file.
inline std::string svg(plot const& p) {
    using namespace detail;
    double const height = header + panel_height * static_cast<double>(p.panels.size());
    std::string out = format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
                             "height=\"%.0f\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n",
                             width, height, width, height);
    out += format("<rect width=\"%.0f\" height=\"%.0f\" fill=\"white\"/>\n", width, height);
    out += text_at(left, 28, p.title, "font-size=\"16\" font-weight=\"bold\"");
    double x = left + 5;
    auto const entry = [&](double y, std::size_t colour, bool is_square, std::string const& name) {
        out += marker(x, y, colour, is_square) + text_at(x + 9, y + 4, name);
        x += 32 + 5.6 * static_cast<double>(name.size());
    };
    for (std::size_t i = 0; i < p.legend.size(); ++i) entry(50, i, false, p.legend[i]);
    x = left + 5;
    if (!p.disc.empty()) entry(70, 0, false, p.disc);
    if (!p.square.empty()) entry(70, 0, true, p.square);
    out += format("<path d=\"M%.1f 70h26\" ", x - 4) + dashes;
    out += text_at(x + 28, 74, "Pareto front");
    for (std::size_t i = 0; i < p.panels.size(); ++i)
        out += draw(p.panels[i], header + panel_height * static_cast<double>(i));
    return out + "</svg>\n";
}

} // namespace compress
