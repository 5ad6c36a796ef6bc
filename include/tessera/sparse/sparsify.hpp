// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Dense matrices to sparse ones by magnitude, and back:
///
///     auto const outliers = sparsify<csr<fp16>>(w, keep_fraction{0.005});     // the largest 0.5% of all weights
///     auto const pruned = sparsify<n_of_m<2, 4, int8>>(w);                    // the larger two of every four
///     auto const dense = densify(outliers);
///
/// What is kept depends on w alone. A NaN counts as larger than anything, so it is kept and seen. int8: codes are rounded
/// to nearest even with scale = max |kept w| / 127 of the row (or the matrix); where that is not finite the scale is NaN.

#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "../storage/csr.hpp"
#include "../storage/n_of_m.hpp"
#include "../storage/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Weights of magnitude at least `least`, and not 0.
struct magnitude_threshold {
    float least;
    constexpr explicit magnitude_threshold(float value) noexcept : least{value} {}
};
/// The `count` largest magnitudes of every row (all of a shorter one), zeros among them too; of equal ones those of lower
/// column.
struct top_per_row {
    index_t count;
    constexpr explicit top_per_row(index_t n) noexcept : count{n} {}
};
/// The round(fraction * n * k) largest magnitudes of the matrix; of equal ones those that come first, row by row.
struct keep_fraction {
    double fraction;
    constexpr explicit keep_fraction(double f) noexcept : fraction{f} {}
};

namespace detail {

/// |a| > |b|, where NaN is above infinity.
inline bool has_larger_magnitude(float a, float b) noexcept {
    return std::fabs(a) > std::fabs(b) || (a != a && b == b);
}

/// Rounds kept weights to T; scales of int8 over what is kept. `row_of(i)`: the row of kept weight i.
template <class T, class Granularity, class RowOf>
void store_kept(std::vector<float> const& weights, RowOf const& row_of, index_t scale_count,
                typename sparse_value<T>::stored* values, float* scales) {
    auto const count = static_cast<index_t>(weights.size());
    if constexpr (sparse_value<T>::has_scale) {
        auto const scale_of = [&](index_t i) { return Granularity::rows == 0 ? index_t{0} : row_of(i); };
        for (index_t s = 0; s < scale_count; ++s) scales[s] = 0;
        for (index_t i = 0; i < count; ++i) {
            float const a = std::fabs(weights[static_cast<std::size_t>(i)]);
            float& s = scales[scale_of(i)];
            if (!(a <= std::numeric_limits<float>::max())) s = std::numeric_limits<float>::quiet_NaN();
            if (a > s) s = a;
        }
        for (index_t s = 0; s < scale_count; ++s) scales[s] /= 127.0f;
        for (index_t i = 0; i < count; ++i) {
            float const s = scales[scale_of(i)];
            float const code = s > 0 ? weights[static_cast<std::size_t>(i)] / s : 0.0f;
            values[i] = static_cast<std::int8_t>(int8::integer(int8::encode(code)));
        }
    } else {
        static_cast<void>(row_of), static_cast<void>(scale_count), static_cast<void>(scales);
        for (index_t i = 0; i < count; ++i)
            values[i] = static_cast<typename sparse_value<T>::stored>(weights[static_cast<std::size_t>(i)]);
    }
}

/// Compressed rows of the elements that `keep(n, k)` names.
template <class T, class Granularity, class Keep>
csr_tensor<T, Granularity> compress(matrix_view<float const> const& w, Keep const& keep) {
    index_t const n = w.extent(0);
    index_t const k = w.extent(1);
    check::within("sparsify", "columns of w", k, 0, std::numeric_limits<std::int32_t>::max());
    std::vector<float> weights;
    std::vector<std::int32_t> columns;
    std::vector<index_t> row, offsets(static_cast<std::size_t>(n + 1), 0);
    for (index_t r = 0; r < n; ++r) {
        for (index_t c = 0; c < k; ++c)
            if (keep(r, c)) {
                weights.push_back(w(r, c));
                columns.push_back(static_cast<std::int32_t>(c));
                row.push_back(r);
            }
        offsets[static_cast<std::size_t>(r + 1)] = static_cast<index_t>(weights.size());
    }
    auto result = csr_access::make<T, Granularity>(static_cast<index_t>(weights.size()), n, k);
    std::copy(offsets.begin(), offsets.end(), csr_access::offsets(result));
    std::copy(columns.begin(), columns.end(), csr_access::columns(result));
    store_kept<T, Granularity>(
        weights, [&](index_t i) { return row[static_cast<std::size_t>(i)]; }, sparse_scales<T, Granularity>(n),
        result.values(), result.scales());
    return result;
}

/// Marks the `count` elements of [first, last) of w, row by row, that come first by magnitude, then by index.
inline void mark_largest(matrix_view<float const> const& w, index_t first, index_t last, index_t count,
                         std::vector<bool>& marked) {
    std::vector<index_t> order(static_cast<std::size_t>(last - first));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = first + static_cast<index_t>(i);
    index_t const k = maximum(w.extent(1), 1);
    auto const before = [&](index_t a, index_t b) {
        float const x = w(a / k, a % k);
        float const y = w(b / k, b % k);
        return has_larger_magnitude(x, y) || (!has_larger_magnitude(y, x) && a < b);
    };
    auto const end = order.begin() + minimum(count, last - first);
    std::nth_element(order.begin(), end, order.end(), before);
    for (auto i = order.begin(); i != end; ++i) marked[static_cast<std::size_t>(*i)] = true;
}

template <class Storage>
struct sparsifier {
    static_assert(always_false<Storage>, "tessera: sparsify<Storage>(w, ...): Storage is csr<T> or n_of_m<N, M, T>");
};

template <class T, class G>
struct sparsifier<csr<T, G>> {
    using owner = csr_tensor<T, G>;
    static owner run(matrix_view<float const> const& w, magnitude_threshold const& rule) {
        if (!(rule.least >= 0))
            raise<shape_error>("tessera: sparsify: the threshold is " + std::to_string(rule.least) + ", expected at least 0");
        return compress<T, G>(w, [&](index_t n, index_t k) {
            float const v = w(n, k);
            return v != 0 && !(std::fabs(v) < rule.least);
        });
    }
    static owner run(matrix_view<float const> const& w, top_per_row const& rule) {
        check::within("sparsify", "weights per row", rule.count, 0, std::numeric_limits<index_t>::max());
        std::vector<bool> marked(static_cast<std::size_t>(w.size()), false);
        for (index_t n = 0; n < w.extent(0); ++n)
            mark_largest(w, n * w.extent(1), (n + 1) * w.extent(1), rule.count, marked);
        return run(w, marked);
    }
    static owner run(matrix_view<float const> const& w, keep_fraction const& rule) {
        if (!(rule.fraction >= 0 && rule.fraction <= 1))
            raise<shape_error>("tessera: sparsify: the fraction is " + std::to_string(rule.fraction) + ", expected 0 to 1");
        std::vector<bool> marked(static_cast<std::size_t>(w.size()), false);
        mark_largest(w, 0, w.size(), static_cast<index_t>(std::llround(rule.fraction * static_cast<double>(w.size()))), marked);
        return run(w, marked);
    }

private:
    static owner run(matrix_view<float const> const& w, std::vector<bool> const& marked) {
        return compress<T, G>(w, [&](index_t n, index_t k) { return marked[static_cast<std::size_t>(n * w.extent(1) + k)]; });
    }
};

template <index_t N, index_t M, class T, class G>
struct sparsifier<n_of_m<N, M, T, G>> {
    using owner = n_of_m_tensor<N, M, T, G>;
    static owner run(matrix_view<float const> const& w) {
        owner result{w.extent(0), w.extent(1)};
        index_t const slots = result.view().row_slots();
        std::vector<float> weights(static_cast<std::size_t>(w.extent(0) * slots), 0.0f);
        for (index_t n = 0; n < w.extent(0); ++n)
            for (index_t g = 0; g < result.view().groups(); ++g) {
                index_t positions[N] = {};
                select(w, n, g * M, positions);
                result.keep(n, g, positions);
                for (index_t j = 0; j < N; ++j)
                    if (index_t const k = g * M + positions[j]; k < w.extent(1))
                        weights[static_cast<std::size_t>(n * slots + g * N + j)] = w(n, k);
            }
        store_kept<T, G>(
            weights, [&](index_t i) { return i / slots; }, sparse_scales<T, G>(w.extent(0)), result.values(), result.scales());
        return result;
    }

private:
    /// Drops the smallest until N are left, of equal ones the first; columns beyond the matrix go before all others, but
    /// the first of them stay where too few are left.
    static void select(matrix_view<float const> const& w, index_t n, index_t first, index_t (&positions)[N]) {
        index_t const here = minimum(M, w.extent(1) - first);
        bool dropped[M] = {};
        for (index_t drops = M - N, i = 0; i < drops; ++i) {
            index_t smallest = -1;
            if (index_t const last = M - 1 - i; last >= here) {
                smallest = last;
            } else {
                for (index_t p = 0; p < here; ++p)
                    if (!dropped[p] && (smallest < 0 || has_larger_magnitude(w(n, first + smallest), w(n, first + p)))) smallest = p;
            }
            dropped[smallest] = true;
        }
        for (index_t p = 0, j = 0; p < M; ++p)
            if (!dropped[p]) positions[j++] = p;
    }
};

} // namespace detail

/// w (n, k) in compressed rows of what `rule` keeps: magnitude_threshold, top_per_row or keep_fraction. O(n k).
template <class Storage, class Rule>
auto sparsify(matrix_view<float const> const& w, Rule const& rule) {
    check::elements("sparsify", "w", w);
    return detail::sparsifier<Storage>::run(w, rule);
}
template <class Storage, class Rule>
auto sparsify(matrix<float> const& w, Rule const& rule) {
    return sparsify<Storage>(w.view(), rule);
}
/// w (n, k) with the N largest of every M weights of a row; of equal ones those of higher column. O(n k M).
template <class Storage>
auto sparsify(matrix_view<float const> const& w) {
    check::elements("sparsify", "w", w);
    return detail::sparsifier<Storage>::run(w);
}
template <class Storage>
auto sparsify(matrix<float> const& w) {
    return sparsify<Storage>(w.view());
}

/// All elements of sparse storage.
template <sparse_storage Storage>
matrix<float> densify(Storage const& w) {
    matrix<float> result{w.rows(), w.cols()};
    for (index_t n = 0; n < w.rows(); ++n) w.for_each_entry(n, [&](index_t k, float weight) { result(n, k) = weight; });
    return result;
}
template <class T, class G>
matrix<float> densify(csr_tensor<T, G> const& w) {
    return densify(w.view());
}
template <index_t N, index_t M, class T, class G>
matrix<float> densify(n_of_m_tensor<N, M, T, G> const& w) {
    return densify(w.view());
}

} // namespace tessera::inline TESSERA_ABI
