// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Lloyd's algorithm of numbers, where clusters are intervals of the sorted ones and sums come from prefix sums in double:
/// k-means of numbers with weights, and levels of quantisers. Everything is deterministic.

#include "../core/philox.hpp"
#include "../core/types.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace tessera::inline TESSERA_ABI::detail {

/// Numbers in ascending order with weights, and what of them may be asked in constant time.
class sorted_samples {
public:
    /// @param weight null: 1 each. Weights of which none is above 0 count as 1. Equal numbers keep their order.
    sorted_samples(float const* value, float const* weight, index_t n) : order_(static_cast<std::size_t>(n)) {
        for (index_t i = 0; i < n; ++i) order_[static_cast<std::size_t>(i)] = i;
        std::sort(order_.begin(), order_.end(), [&](index_t a, index_t b) { return value[a] < value[b] || (value[a] == value[b] && a < b); });
        double total = 0;
        for (index_t i = 0; weight != nullptr && i < n; ++i) total += static_cast<double>(weight[i]);
        bool const is_weighted = weight != nullptr && total > 0;
        value_.reserve(order_.size());
        sums_.assign(order_.size() + 1, sums{});
        for (std::size_t i = 0; i < order_.size(); ++i) {
            auto const v = static_cast<double>(value[order_[i]]);
            double const w = is_weighted ? static_cast<double>(weight[order_[i]]) : 1.0;
            value_.push_back(v);
            sums_[i + 1] = {sums_[i].weight + w, sums_[i].first + w * v, sums_[i].second + w * v * v, sums_[i].plain + v};
        }
    }

    index_t size() const noexcept { return static_cast<index_t>(value_.size()); }
    double value(index_t i) const noexcept { return value_[static_cast<std::size_t>(i)]; }
    /// Where sorted number i was.
    index_t source(index_t i) const noexcept { return order_[static_cast<std::size_t>(i)]; }
    double weight(index_t first, index_t last) const noexcept { return at(last).weight - at(first).weight; }
    /// Mean of [first, last), which is not empty; unweighted where all weights are 0.
    double mean(index_t first, index_t last) const noexcept {
        double const w = weight(first, last);
        double const m = w > 0 ? (at(last).first - at(first).first) / w
                               : (at(last).plain - at(first).plain) / static_cast<double>(last - first);
        return std::clamp(m, value(first), value(last - 1)); // prefix sums round
    }
    /// Sum of weighted squared distances of [first, last) from its mean, at least 0.
    double scatter(index_t first, index_t last) const noexcept {
        double const w = weight(first, last);
        if (!(w > 0)) return 0;
        double const s = at(last).first - at(first).first;
        double const d = at(last).second - at(first).second - s * s / w;
        return d > 0 ? d : 0;
    }
    /// The first index of [first, last) whose number is above `edge`, or last.
    index_t above(index_t first, index_t last, double edge) const noexcept {
        return std::upper_bound(value_.begin() + first, value_.begin() + last, edge) - value_.begin();
    }
    /// Where [first, last) is best cut in two: the cut of least scatter, none (last) where all numbers are one.
    index_t best_cut(index_t first, index_t last) const noexcept {
        index_t best = last;
        double least = 0;
        for (index_t i = first + 1; i < last; ++i) {
            if (!(value(i - 1) < value(i))) continue; // equal numbers stay together
            double const here = scatter(first, i) + scatter(i, last);
            if (best == last || here < least) {
                best = i;
                least = here;
            }
        }
        return best;
    }

private:
    struct sums {
        double weight = 0;
        double first = 0;
        double second = 0;
        double plain = 0;
    };
    sums const& at(index_t i) const noexcept { return sums_[static_cast<std::size_t>(i)]; }

    std::vector<index_t> order_;
    std::vector<double> value_;
    std::vector<sums> sums_;
};

/// Ascending numbers without weights, kept by somebody else.
class sorted_numbers {
public:
    sorted_numbers(double const* x, index_t n) : x_{x}, sums_(static_cast<std::size_t>(n) + 1) {
        for (std::size_t i = 0; i + 1 < sums_.size(); ++i) sums_[i + 1] = sums_[i] + x[i];
    }
    index_t size() const noexcept { return static_cast<index_t>(sums_.size()) - 1; }
    double value(index_t i) const noexcept { return x_[i]; }
    double mean(index_t first, index_t last) const noexcept {
        double const sum = sums_[static_cast<std::size_t>(last)] - sums_[static_cast<std::size_t>(first)];
        return std::clamp(sum / static_cast<double>(last - first), x_[first], x_[last - 1]); // prefix sums round
    }
    index_t above(index_t first, index_t last, double edge) const noexcept { return std::upper_bound(x_ + first, x_ + last, edge) - x_; }

private:
    double const* x_;
    std::vector<double> sums_;
};

/// A partition of sorted samples: cluster c is [edge[c], edge[c + 1]), with its centroid.
struct intervals {
    std::vector<index_t> edge;
    std::vector<double> centroid;
};

/// Centroids become the means of their clusters; an empty cluster keeps its own.
template <class Samples>
void take_means(Samples const& s, intervals& r) noexcept {
    for (std::size_t c = 0; c + 1 < r.edge.size(); ++c)
        if (r.edge[c] < r.edge[c + 1]) r.centroid[c] = s.mean(r.edge[c], r.edge[c + 1]);
}

/// Numbers go to the nearest centroid, of two equally near ones to the lower. Whether an edge moved.
template <class Samples>
bool find_edges(Samples const& s, intervals& r) noexcept {
    bool moved = false;
    for (std::size_t c = 1; c + 1 < r.edge.size(); ++c) {
        index_t const edge = s.above(r.edge[c - 1], s.size(), 0.5 * (r.centroid[c - 1] + r.centroid[c]));
        moved = moved || edge != r.edge[c];
        r.edge[c] = edge;
    }
    return moved;
}

/// Lloyd's steps from the centroids, which ascend, until no edge moves or `steps` are done.
template <class Samples>
void lloyd(Samples const& s, intervals& r, int steps) noexcept {
    for (int step = 0; step < steps && find_edges(s, r); ++step) take_means(s, r);
}

/// The same from the quantiles (2 i + 1) / (2 k) of some numbers.
inline intervals lloyd_from_quantiles(sorted_numbers const& s, index_t k, int steps) {
    intervals r;
    r.edge.assign(static_cast<std::size_t>(k + 1), s.size());
    r.edge[0] = 0;
    for (index_t i = 0; i < k; ++i) r.centroid.push_back(s.value(minimum(s.size() - 1, (2 * i + 1) * s.size() / (2 * k))));
    find_edges(s, r);
    if (steps > 0) take_means(s, r);
    lloyd(s, r, steps - 1);
    find_edges(s, r); // where steps ended it
    return r;
}

/// k-means of numbers: the interval whose best cut gains most is cut until there are k, and then come Lloyd's steps, until nothing
/// moves or `steps` are done. (From k intervals of equal weight Lloyd's steps end in worse places: a tail's cluster widens slowly.)
/// Centroids ascend; clusters beyond the different numbers are empty, with the largest number as centroid.
inline intervals kmeans_1d(sorted_samples const& s, index_t k, int steps = 50) {
    struct part {
        index_t first;
        index_t last;
        index_t cut;
        double gain; // below 0: of one number only
    };
    auto const part_of = [&](index_t first, index_t last) {
        index_t const cut = s.best_cut(first, last);
        double const gain = cut == last ? -1.0 : std::fmax(s.scatter(first, last) - s.scatter(first, cut) - s.scatter(cut, last), 0.0);
        return part{first, last, cut, gain};
    };
    intervals r;
    r.edge.assign(static_cast<std::size_t>(k + 1), s.size());
    r.centroid.assign(static_cast<std::size_t>(k), s.size() == 0 ? 0.0 : s.value(s.size() - 1));
    r.edge[0] = 0;
    if (s.size() == 0) return r;
    std::vector<part> parts{part_of(0, s.size())};
    while (static_cast<index_t>(parts.size()) < k) {
        auto const best = std::max_element(parts.begin(), parts.end(), [](part const& a, part const& b) { return a.gain < b.gain; });
        if (best->gain < 0) break;
        part const whole = *best;
        *best = part_of(whole.first, whole.cut);
        parts.push_back(part_of(whole.cut, whole.last));
    }
    std::sort(parts.begin(), parts.end(), [](part const& a, part const& b) { return a.first < b.first; });
    for (std::size_t c = 0; c < parts.size(); ++c) r.edge[c] = parts[c].first;
    take_means(s, r);
    lloyd(s, r, steps);
    return r;
}

} // namespace tessera::inline TESSERA_ABI::detail
