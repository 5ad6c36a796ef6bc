// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Nested codes (storage/any_precision.hpp), row by row: a seed of 2^s clusters by weighted k-means of numbers (at most 50 of
/// Lloyd's steps, from intervals of equal weight), then for every further bit each cluster, an interval of the sorted row, is cut
/// in two where the weighted sum of squares becomes least: the exact cut, by prefix sums. The children of cluster c have codes
/// 2 c (lower) and 2 c + 1; one that cannot be cut (empty, or of equal weights) gives its centroid to both.
///
///     auto const q = quantize_any_precision(w);                  // 3 to 8 bits
///     auto const layer = place(exec, linear{q.prefix<4>()});
///     apply(exec, linear{q.prefix<6>()}, x, y);                  // the same memory
///
/// The importance of a weight is, as published, the sum of its squared gradients; that of a weight 0 counts as 0, and a row whose
/// importance is 0 throughout is weighted evenly. Centroids are weighted means, stored in fp16, saturating: so code_b =
/// code_8 >> (8 - b), tables ascend, and the weighted error does not grow with b (but for that rounding).
///
/// A row with a weight that is not finite has codes 0 and tables of NaN.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../storage/any_precision.hpp"
#include "../storage/tensor.hpp"
#include "kmeans.hpp"
#include "table_quantize.hpp"

#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Widths of the narrowest and of the widest model.
struct any_precision_options {
    int seed_bits = 3;
    int parent_bits = 8;
};

namespace detail {

inline void store_table(any_precision_tensor& q, int bits, index_t n, std::vector<double> const& centroid) {
    fp16* const to = q.table(bits, n);
    for (std::size_t c = 0; c < centroid.size(); ++c) to[c] = saturated<fp16>(static_cast<float>(centroid[c]));
}

/// Every cluster of `parents` in two.
inline intervals split_clusters(sorted_samples const& s, intervals const& parents) {
    intervals children;
    children.edge.push_back(0);
    for (std::size_t c = 0; c < parents.centroid.size(); ++c) {
        index_t const first = parents.edge[c];
        index_t const last = parents.edge[c + 1];
        index_t const cut = s.best_cut(first, last);
        bool const is_cut = cut < last;
        children.edge.push_back(cut);
        children.edge.push_back(last);
        children.centroid.push_back(is_cut ? s.mean(first, cut) : parents.centroid[c]);
        children.centroid.push_back(is_cut ? s.mean(cut, last) : parents.centroid[c]);
    }
    return children;
}

inline void quantize_row_nested(std::span<float const> row, std::span<float const> importance, index_t n, any_precision_tensor& q) {
    bool is_finite = true;
    for (float const v : row) is_finite = is_finite && std::fabs(v) <= std::numeric_limits<float>::max();
    if (!is_finite) {
        for (int b = q.seed_bits(); b <= q.parent_bits(); ++b)
            store_table(q, b, n, std::vector<double>(std::size_t{1} << b, std::numeric_limits<double>::quiet_NaN()));
        return;
    }
    std::vector<float> weight(importance.begin(), importance.end());
    for (std::size_t k = 0; k < weight.size(); ++k) weight[k] = row[k] == 0.0f ? 0.0f : weight[k];
    sorted_samples const sorted{row.data(), weight.empty() ? nullptr : weight.data(), static_cast<index_t>(row.size())};
    intervals clusters = kmeans_1d(sorted, index_t{1} << q.seed_bits());
    store_table(q, q.seed_bits(), n, clusters.centroid);
    for (int b = q.seed_bits() + 1; b <= q.parent_bits(); ++b) {
        clusters = split_clusters(sorted, clusters);
        store_table(q, b, n, clusters.centroid);
    }
    for (std::size_t c = 0; c < clusters.centroid.size(); ++c)
        for (index_t i = clusters.edge[c]; i < clusters.edge[c + 1]; ++i)
            q.set_code(n, sorted.source(i), static_cast<std::uint32_t>(c));
}

} // namespace detail

/// w (n, k) in nested codes; see the file comment. @param importance (n, k), or empty: even. O(n k (log k + parent bits)).
inline any_precision_tensor quantize_any_precision(matrix_view<float const> const& w, matrix_view<float const> const& importance = {},
                                                   any_precision_options const& options = {}) {
    detail::check_importance("quantize_any_precision", w, importance);
    any_precision_tensor q{w.extent(0), w.extent(1), options.seed_bits, options.parent_bits};
    auto const columns = static_cast<std::size_t>(w.extent(1));
    std::vector<float> row(columns);
    std::vector<float> weight(importance.empty() ? 0 : columns);
    for (index_t n = 0; n < w.extent(0); ++n) {
        for (std::size_t k = 0; k < columns; ++k) row[k] = w(n, static_cast<index_t>(k));
        for (std::size_t k = 0; k < weight.size(); ++k) weight[k] = importance(n, static_cast<index_t>(k));
        detail::quantize_row_nested(row, weight, n, q);
    }
    return q;
}
inline any_precision_tensor quantize_any_precision(matrix<float> const& w, any_precision_options const& options = {}) {
    return quantize_any_precision(w.view(), {}, options);
}

/// The authors' planes, [parent][n][k / 32] words (k a multiple of 32), into the planes of q, whose tables the caller writes.
/// Throws shape_error.
inline void read_any_precision_planes(std::span<std::uint32_t const> words, any_precision_tensor& q) {
    check::multiple("read_any_precision_planes", "columns", q.cols(), 32);
    check::equal("read_any_precision_planes", "number of words", static_cast<index_t>(words.size()),
                 q.parent_bits() * q.rows() * q.cols() / 32, "bits times rows times columns / 32");
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) {
            any_precision_place const at = any_precision_word(k, q.cols());
            std::uint32_t code = 0;
            for (int p = 0; p < q.parent_bits(); ++p)
                code = code << 1 | (words[static_cast<std::size_t>((p * q.rows() + n) * (q.cols() / 32) + at.word)] >> at.bit & 1u);
            q.set_code(n, k, code);
        }
}

} // namespace tessera::inline TESSERA_ABI
