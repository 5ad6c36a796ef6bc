// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Random sparse matrices, with empty and with full rows, and how far a kernel may be from the reference, for tests of every backend: a
/// weight that is not stored takes part in no rounding.

#include "apply_case.hpp"
#include "operands.hpp"

#include <tessera/kernels/ref/sparse.hpp>
#include <tessera/sparse/sparsify.hpp>

#include <algorithm>
#include <vector>

namespace tessera_test {

/// Most stored weights of a row, and of a column.
template <class Storage>
index_t longest_row(Storage const& w) {
    index_t longest = 0;
    for (index_t n = 0; n < w.rows(); ++n) {
        index_t count = 0;
        w.for_each_entry(n, [&](index_t, float) { ++count; });
        longest = ts::maximum(longest, count);
    }
    return longest;
}
template <class Storage>
index_t longest_column(Storage const& w) {
    std::vector<index_t> count(static_cast<std::size_t>(w.cols()), 0);
    for (index_t n = 0; n < w.rows(); ++n) w.for_each_entry(n, [&](index_t k, float) { ++count[static_cast<std::size_t>(k)]; });
    return count.empty() ? 0 : *std::max_element(count.begin(), count.end());
}

/// A multiply-add an entry (two roundings without the fused form), two sums, the scale twice, the factor.
template <ts::sparse_storage Storage, class P>
struct error_model<ts::linear<Storage, P>> {
    using op = ts::linear<Storage, P>;
    static index_t roundings(op const& w) { return longest_row(w.storage()) + 5; }
    static row_of_doubles magnitude(op const& w, row_of_doubles const& x) {
        row_of_doubles y(static_cast<std::size_t>(w.rows()), 0.0);
        for (index_t n = 0; n < w.rows(); ++n)
            w.storage().for_each_entry(n, [&](index_t k, float weight) {
                y[static_cast<std::size_t>(n)] += std::abs(x[static_cast<std::size_t>(k)] * double{weight});
            });
        return y;
    }
};

/// Besides, at most eight parts are added.
template <ts::sparse_storage Storage, class P>
struct error_model<ts::transposed_operator<ts::linear<Storage, P>>> {
    using op = ts::transposed_operator<ts::linear<Storage, P>>;
    static index_t roundings(op const& t) { return longest_column(t.inner().storage()) + 5 + 8; }
    static row_of_doubles magnitude(op const& t, row_of_doubles const& x) {
        row_of_doubles y(static_cast<std::size_t>(t.rows()), 0.0);
        for (index_t n = 0; n < t.cols(); ++n)
            t.inner().storage().for_each_entry(n, [&](index_t k, float weight) {
                y[static_cast<std::size_t>(k)] += std::abs(x[static_cast<std::size_t>(n)] * double{weight});
            });
        return y;
    }
};

/// Normal numbers; row n keeps a share of `density`, but every fifth is empty and every seventh full.
inline ts::matrix<float> random_sparse(index_t n, index_t k, double density, std::uint64_t seed = 7) {
    ts::matrix<float> w{n, k};
    ts::philox const random{seed};
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) {
            auto const at = static_cast<std::uint64_t>(2 * (i * k + j));
            bool const keeps = i % 5 != 3 && (i % 7 == 5 || double{random.uniform(at + 1)} < density);
            w(i, j) = keeps ? random.normal(at) : 0.0f;
        }
    return w;
}

/// What a law takes as its template argument.
template <class T, class Granularity, int Percent>
struct csr_storage_of {
    static constexpr index_t group = 0;
    static constexpr index_t column_unit = 1;
    ts::csr_tensor<T, Granularity> owner;
    csr_storage_of(index_t n, index_t k)
        : owner{ts::sparsify<ts::csr<T, Granularity>>(random_sparse(n, k, 0.01 * Percent), ts::magnitude_threshold{0})} {}
    auto view() const { return owner.view(); }
};
template <index_t N, index_t M, class T, class Granularity = ts::per_channel>
struct n_of_m_storage_of {
    static constexpr index_t group = M;
    static constexpr index_t column_unit = 1;
    ts::n_of_m_tensor<N, M, T, Granularity> owner;
    n_of_m_storage_of(index_t n, index_t k)
        : owner{ts::sparsify<ts::n_of_m<N, M, T, Granularity>>(random_sparse(n, k, 0.9))} {}
    auto view() const { return owner.view(); }
};

} // namespace tessera_test
