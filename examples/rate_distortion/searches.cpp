// SPDX-License-Identifier: MIT
#include "searches.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>

namespace rate_distortion {

namespace {

using tessera::index_t;
constexpr double infinity = std::numeric_limits<double>::infinity();

/// The mean over all numbers of what `error_of` gives for each group of a row.
template <class Error>
double mean_of_groups(numbers_view const& w, index_t group, Error const& error_of) {
    double sum = 0;
    std::vector<double> x;
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t first = 0; first < w.extent(1); first += group) {
            x.clear();
            for (index_t k = first; k < std::min(first + group, w.extent(1)); ++k) x.push_back(static_cast<double>(w(n, k)));
            sum += error_of(std::span<double const>{x});
        }
    return sum / static_cast<double>(w.size());
}

double squares(std::span<double const> x) {
    double sum = 0;
    for (double const v : x) sum += v * v;
    return sum;
}

double extreme_of(std::span<double const> x) {
    double most = 0;
    for (double const v : x)
        if (std::fabs(v) > std::fabs(most)) most = v;
    return most;
}

double error_of_values(std::span<double const> x, cells const& c, double scale) {
    double sum = 0;
    for (double const v : x) sum += detail::error_at(c, {scale, scale}, v);
    return sum;
}

/// See `least_error_of_scales`, of one group.
double least_error_of_scale(std::span<double const> x, cells const& c) {
    struct change {
        double at; ///< 1 / scale
        double number;
        std::size_t from;
        std::size_t to;
    };
    double const first = c.values.back() / std::fabs(extreme_of(x)); // 1 / scale
    std::vector<change> changes;
    double products = 0, values = 0;
    for (double const v : x) {
        auto at = static_cast<std::size_t>(std::upper_bound(c.edges.begin(), c.edges.end(), v * first) - c.edges.begin());
        products += v * c.values[at];
        values += c.values[at] * c.values[at];
        if (v > 0)
            for (; at < c.edges.size(); ++at) changes.push_back({c.edges[at] / v, v, at, at + 1});
        else if (v < 0)
            for (; at > 0; --at) changes.push_back({c.edges[at - 1] / v, v, at, at - 1});
    }
    std::sort(changes.begin(), changes.end(), [](change const& a, change const& b) { return a.at < b.at; });
    changes.push_back({1e30, 0, 0, 0});
    double const all = squares(x);
    double least = all;
    double from = first;
    for (change const& e : changes) {
        double const scale = values > 0 ? std::clamp(products / values, 1 / e.at, 1 / from) : 0;
        least = std::min(least, all - 2 * scale * products + scale * scale * values);
        from = std::max(from, e.at);
        products += e.number * (c.values[e.to] - c.values[e.from]);
        values += c.values[e.to] * c.values[e.to] - c.values[e.from] * c.values[e.from];
    }
    return least;
}

/// Sums over sorted numbers, so that the error of any run of them about its mean costs nothing.
class sorted_runs {
public:
    explicit sorted_runs(std::vector<double> x) {
        std::sort(x.begin(), x.end());
        for (double const v : x) {
            sum_.push_back(sum_.back() + v);
            square_.push_back(square_.back() + v * v);
        }
    }
    std::size_t size() const { return sum_.size() - 1; }
    double error(std::size_t first, std::size_t last) const {
        double const sum = sum_[last] - sum_[first];
        return last == first ? 0 : square_[last] - square_[first] - sum * sum / static_cast<double>(last - first);
    }
    double mean(std::size_t first, std::size_t last) const {
        return last == first ? 0 : (sum_[last] - sum_[first]) / static_cast<double>(last - first);
    }

private:
    std::vector<double> sum_{0};
    std::vector<double> square_{0};
};

/// Where the best `count` runs end. The best last cut moves right as the numbers grow more, so each half of a level is searched on its
/// side of the middle's cut.
std::vector<std::size_t> best_runs(sorted_runs const& x, std::size_t count) {
    std::size_t const n = x.size();
    std::vector<double> before(n + 1, infinity), now(n + 1);
    before[0] = 0;
    std::vector<std::vector<std::size_t>> cut(count, std::vector<std::size_t>(n + 1, 0));
    for (std::size_t level = 0; level < count; ++level) {
        struct range {
            std::size_t first, last, low, high;
        };
        std::vector<range> left{{0, n, 0, n}};
        while (!left.empty()) {
            range const r = left.back();
            left.pop_back();
            std::size_t const middle = (r.first + r.last) / 2;
            double least = infinity;
            std::size_t best = r.low;
            for (std::size_t j = r.low; j <= std::min(middle, r.high); ++j) {
                double const e = before[j] + x.error(j, middle);
                if (e < least) least = e, best = j;
            }
            now[middle] = least;
            cut[level][middle] = best;
            if (middle > r.first) left.push_back({r.first, middle - 1, r.low, best});
            if (middle < r.last) left.push_back({middle + 1, r.last, best, r.high});
        }
        before = now;
    }
    std::vector<std::size_t> ends(count);
    std::size_t end = n;
    for (std::size_t level = count; level-- > 0; end = cut[level][end]) ends[level] = end;
    return ends;
}

} // namespace

double least_error_of_scales(numbers_view const& w, index_t group, std::vector<double> const& values) {
    cells const c = nearest(values);
    return mean_of_groups(w, group, [&](std::span<double const> x) { return least_error_of_scale(x, c); });
}

double lloyd_scale_error(numbers_view const& w, index_t group, int limit, scale_rounding const& rounded) {
    return mean_of_groups(w, group, [&](std::span<double const> x) {
        double least = infinity;
        double range = std::fabs(extreme_of(x));
        for (int i = 0; i <= 32; ++i) {
            double const scale = rounded(range / limit);
            double error = 0, cross = 0, square = 0;
            for (double const v : x) {
                double const q = scale * std::clamp(std::nearbyint(v / scale), -1.0 * limit, 1.0 * limit);
                error += (v - q) * (v - q);
                cross += v * q;
                square += q * q;
            }
            least = std::min(least, error);
            if (!(square > 0) || std::fabs(cross / square - 1) <= 0x1p-12) break;
            range *= cross / square;
        }
        return least;
    });
}

double chosen_affine_error(numbers_view const& w, index_t group, int steps, scale_rounding const& rounded) {
    return mean_of_groups(w, group, [&](std::span<double const> x) {
        double const low = std::min(0.0, *std::min_element(x.begin(), x.end()));
        double const high = std::max(0.0, *std::max_element(x.begin(), x.end()));
        double least = infinity;
        for (int share = 1; share <= 64; ++share) {
            double const scale = rounded((high - low) * share / 64 / steps);
            double const zero = std::clamp(std::nearbyint(-low * share / 64 / scale), 0.0, 1.0 * steps);
            double error = 0;
            for (double const v : x) {
                double const code = std::clamp(std::nearbyint(v / scale + zero), 0.0, 1.0 * steps);
                error += std::pow(v - scale * (code - zero), 2);
            }
            least = std::min(least, error);
        }
        return least;
    });
}

double powers_under_a_row_error(numbers_view const& w, index_t group, std::vector<double> const& values) {
    cells const c = nearest(values);
    return mean_of_groups(w, w.extent(1), [&](std::span<double const> row) {
        double const all = std::fabs(extreme_of(row)) / c.values.back();
        double sum = 0;
        for (std::size_t first = 0; first < row.size(); first += static_cast<std::size_t>(group)) {
            auto const x = row.subspan(first, std::min(static_cast<std::size_t>(group), row.size() - first));
            double const octaves = std::log2(std::fabs(extreme_of(x)) / c.values.back() / all);
            double least = infinity;
            for (double const o : {std::floor(octaves), std::ceil(octaves)})
                least = std::min(least, error_of_values(x, c, all * std::exp2(std::clamp(o, -14.0, 0.0))));
            sum += least;
        }
        return sum;
    });
}

double k_format_error(numbers_view const& w, k_format_card const& card, scale_rounding const& half) {
    bool const is_affine = card.low == 0;
    auto const g = static_cast<std::size_t>(card.group);
    return mean_of_groups(w, 256, [&](std::span<double const> x) {
        std::vector<double> scales, minima;
        for (std::size_t first = 0; first < x.size(); first += g) {
            auto const part = x.subspan(first, g);
            double const low = std::max(0.0, -*std::min_element(part.begin(), part.end()));
            double const high = std::max(0.0, *std::max_element(part.begin(), part.end()));
            minima.push_back(low);
            scales.push_back(is_affine ? (high + low) / card.high : extreme_of(part) / card.low);
        }
        double const super = half(extreme_of(scales) / card.extreme);
        double const super_minimum = half(extreme_of(minima) / card.extreme);
        auto const integer = [&](double v) {
            return std::clamp(std::floor(v + 0.5), card.extreme > 0 ? 0.0 : 1.0 * card.extreme,
                              card.extreme > 0 ? 1.0 * card.extreme : -1.0 - card.extreme);
        };
        double sum = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            double const scale = super * integer(scales[i / g] / super);
            double const minimum = is_affine ? super_minimum * integer(minima[i / g] / super_minimum) : 0;
            double const code = scale == 0 ? 0 : std::clamp(std::floor((x[i] + minimum) / scale + 0.5), 1.0 * card.low, 1.0 * card.high);
            sum += std::pow(x[i] - (scale * code - minimum), 2);
        }
        return sum;
    });
}

double least_error_of_tables(numbers_view const& w, std::size_t count) {
    return mean_of_groups(w, w.extent(1), [&](std::span<double const> x) {
        sorted_runs const runs{{x.begin(), x.end()}};
        double sum = 0;
        std::size_t first = 0;
        for (std::size_t const end : best_runs(runs, count)) sum += runs.error(first, end), first = end;
        return sum;
    });
}

double least_error_of_cut_tables(numbers_view const& w, std::size_t count) {
    return mean_of_groups(w, w.extent(1), [&](std::span<double const> x) {
        sorted_runs const runs{{x.begin(), x.end()}};
        double sum = 0;
        std::size_t first = 0;
        for (std::size_t const end : best_runs(runs, count)) {
            double least = runs.error(first, end);
            for (std::size_t cut = first; cut < end; ++cut) least = std::min(least, runs.error(first, cut) + runs.error(cut, end));
            sum += least;
            first = end;
        }
        return sum;
    });
}

double pyramid_error(numbers_view const& w, index_t group, int pulses, int largest, std::size_t gains) {
    struct shape {
        double norm;   ///< of the row
        double gain;   ///< over it, of least squares
        double beside; ///< the squared error that no gain takes away
    };
    std::vector<shape> shapes;
    double norm = 0;
    index_t seen = 0;
    mean_of_groups(w, group, [&](std::span<double const> x) {
        if (seen++ % (w.extent(1) / group) == 0) { // a row begins
            norm = 0;
            for (index_t k = 0; k < w.extent(1); ++k) {
                auto const v = static_cast<double>(w((seen - 1) / (w.extent(1) / group), k));
                norm += v * v;
            }
            norm = std::sqrt(norm);
        }
        std::vector<int> p(x.size(), 0);
        double product = 0, square = 0;
        for (int i = 0; i < pulses; ++i) {
            std::size_t best = 0;
            double most = -1;
            for (std::size_t j = 0; j < x.size(); ++j) {
                if (p[j] == largest) continue;
                double const quality = std::pow(product + std::fabs(x[j]), 2) / (square + 2 * p[j] + 1);
                if (quality > most) most = quality, best = j;
            }
            product += std::fabs(x[best]);
            square += 2 * p[best] + 1;
            ++p[best];
        }
        double const gain = product / std::sqrt(square);
        shapes.push_back({norm, gain / norm, squares(x) - gain * gain});
        return 0.0;
    });
    std::vector<double> ratios;
    for (shape const& s : shapes) ratios.push_back(s.gain);
    sorted_runs const runs{ratios};
    std::vector<double> levels;
    std::size_t first = 0;
    for (std::size_t const end : best_runs(runs, gains)) levels.push_back(runs.mean(first, end)), first = end;
    cells const c = nearest(levels);
    double sum = 0;
    for (shape const& s : shapes) sum += s.beside + s.norm * s.norm * detail::error_at(c, {1, 1}, s.gain);
    return sum / static_cast<double>(w.size());
}

} // namespace rate_distortion
