// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `csr<T>`: a view of a sparse matrix (n, k) in compressed rows, and `csr_tensor<T>`, its owner. T is float, fp16, bf16 or
/// int8. Four arrays:
///
/// * row offsets (n + 1), 64 bits: row r is [offsets[r], offsets[r + 1]);
/// * columns (nonzeros), 32 bits, ascending within a row, each at most once;
/// * values (nonzeros): T, for int8 the integer;
/// * scales, int8 only: one a row (per_channel) or one (per_tensor).
///
/// Arrays from elsewhere are checked entry by entry where a view or an owner is built: what exists is well formed.

#include "../core/error.hpp"
#include "buffer.hpp"
#include "sparse_value.hpp"

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

[[noreturn]] TESSERA_COLD inline void raise_csr(std::string const& what, index_t at, index_t actual,
                                                std::string const& expected) {
    raise<shape_error>("tessera: csr: " + what + " " + std::to_string(at) + " is " + std::to_string(actual) + ", expected " +
                       expected);
}

/// Throws where an array breaks the rules of the file comment.
template <std::integral Offset, std::integral Column>
void check_csr(Offset const* offsets, Column const* columns, index_t nonzeros, index_t n, index_t k) {
    check::within("csr", "rows", n, 0, index_t{1} << 48);
    check::within("csr", "columns", k, 0, std::numeric_limits<std::int32_t>::max());
    check::within("csr", "nonzeros", nonzeros, 0, index_t{1} << 48);
    check::not_null("csr", "the array of row offsets", offsets, n + 1);
    check::not_null("csr", "the array of columns", columns, nonzeros);
    if (offsets[0] != 0) raise_csr("row offset", 0, static_cast<index_t>(offsets[0]), "0");
    for (index_t r = 0; r < n; ++r) {
        auto const first = static_cast<index_t>(offsets[r]);
        auto const last = static_cast<index_t>(offsets[r + 1]);
        if (last < first) raise_csr("row offset", r + 1, last, "at least " + std::to_string(first) + " (the one before)");
        if (last > nonzeros) raise_csr("row offset", r + 1, last, "at most " + std::to_string(nonzeros) + " (nonzeros)");
    }
    if (static_cast<index_t>(offsets[n]) != nonzeros)
        raise_csr("row offset", n, static_cast<index_t>(offsets[n]), std::to_string(nonzeros) + " (nonzeros)");
    for (index_t r = 0; r < n; ++r)
        for (index_t i = static_cast<index_t>(offsets[r]); i < static_cast<index_t>(offsets[r + 1]); ++i) {
            auto const c = static_cast<index_t>(columns[i]);
            if (c < 0 || c >= k)
                raise_csr("column of nonzero", i, c, "0 to " + std::to_string(k - 1) + " (row " + std::to_string(r) + ")");
            if (i > static_cast<index_t>(offsets[r]) && c <= static_cast<index_t>(columns[i - 1]))
                raise_csr("column of nonzero", i, c,
                          "above " + std::to_string(static_cast<index_t>(columns[i - 1])) + " (the one before in row " +
                              std::to_string(r) + ")");
        }
}

/// Where arrays are known to be well formed.
struct csr_access;

} // namespace detail

/// A sparse matrix (n, k); a view.
template <class T, class Granularity = per_channel>
class csr {
public:
    using value_type = T;
    using granularity_type = Granularity;
    using stored_type = typename detail::sparse_value<T>::stored;
    static constexpr bool has_scale = detail::sparse_value<T>::has_scale;

    constexpr csr() noexcept = default;

    /// Checks every offset and column, O(n + nonzeros). @param scales null where T has none.
    csr(index_t const* row_offsets, std::int32_t const* columns, stored_type const* values, float const* scales,
        index_t nonzeros, index_t n, index_t k)
        : offsets_{row_offsets}, columns_{columns}, values_{values}, scales_{scales}, rows_{n}, cols_{k} {
        detail::check_csr(row_offsets, columns, nonzeros, n, k);
        check::not_null("csr", "the array of values", values, nonzeros);
        check::not_null("csr", "the array of scales", scales, detail::sparse_scales<T, Granularity>(n));
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t nonzeros() const noexcept { return rows_ == 0 ? 0 : offsets_[rows_]; }
    constexpr index_t row_begin(index_t n) const noexcept { return offsets_[n]; }
    constexpr index_t row_end(index_t n) const noexcept { return offsets_[n + 1]; }
    constexpr index_t const* row_offsets() const noexcept { return offsets_; }
    constexpr std::int32_t const* columns() const noexcept { return columns_; }
    constexpr stored_type const* values() const noexcept { return values_; }
    constexpr float const* scales() const noexcept { return scales_; }
    constexpr float scale(index_t n) const noexcept { return detail::sparse_scale<T, Granularity>(scales_, n); }
    /// The weight of nonzero i, which is in row n.
    constexpr float weight(index_t n, index_t i) const noexcept { return scale(n) * static_cast<float>(values_[i]); }

    /// Stored bytes of all arrays.
    constexpr index_t bytes() const noexcept {
        constexpr auto entry = static_cast<index_t>(sizeof(std::int32_t) + sizeof(stored_type));
        return (rows_ + 1) * static_cast<index_t>(sizeof(index_t)) + nonzeros() * entry +
               detail::sparse_scales<T, Granularity>(rows_) * static_cast<index_t>(sizeof(float));
    }

    /// f(column, weight) for the nonzeros of row n.
    template <class F>
    constexpr void for_each_entry(index_t n, F const& f) const {
        for (index_t i = row_begin(n); i < row_end(n); ++i) f(static_cast<index_t>(columns_[i]), weight(n, i));
    }

    /// Element (n, k), 0 where nothing is stored; O(log of the row's nonzeros).
    constexpr float operator()(index_t n, index_t k) const noexcept {
        index_t low = row_begin(n);
        index_t high = row_end(n);
        while (low < high) {
            index_t const middle = low + (high - low) / 2;
            if (columns_[middle] < k)
                low = middle + 1;
            else
                high = middle;
        }
        return low < row_end(n) && columns_[low] == k ? weight(n, low) : 0.0f;
    }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(offsets_, offsets_ == nullptr ? 0 : (rows_ + 1) * static_cast<index_t>(sizeof(index_t)));
        f(columns_, nonzeros() * static_cast<index_t>(sizeof(std::int32_t)));
        f(values_, nonzeros() * static_cast<index_t>(sizeof(stored_type)));
        f(scales_, detail::sparse_scales<T, Granularity>(rows_) * static_cast<index_t>(sizeof(float)));
    }

private:
    friend struct detail::csr_access;

    index_t const* offsets_ = nullptr;
    std::int32_t const* columns_ = nullptr;
    stored_type const* values_ = nullptr;
    float const* scales_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of a sparse matrix. Where the nonzeros are is fixed; values and scales may change. A move leaves an
/// empty one.
template <class T, class Granularity = per_channel>
class csr_tensor {
public:
    using view_type = csr<T, Granularity>;
    using stored_type = typename view_type::stored_type;

    /// 0 by 0.
    csr_tensor() {
        allocate(0, 0, 0);
        offsets_[0] = 0;
    }

    /// Copies foreign arrays of any integer types (what scipy calls indptr, indices and data, say), checked as a view is.
    template <std::integral Offset, std::integral Column>
    csr_tensor(Offset const* row_offsets, Column const* columns, stored_type const* values, float const* scales,
               index_t nonzeros, index_t n, index_t k) {
        detail::check_csr(row_offsets, columns, nonzeros, n, k);
        check::not_null("csr", "the array of values", values, nonzeros);
        check::not_null("csr", "the array of scales", scales, detail::sparse_scales<T, Granularity>(n));
        allocate(nonzeros, n, k);
        for (index_t r = 0; r <= n; ++r) offsets_[r] = static_cast<index_t>(row_offsets[r]);
        for (index_t i = 0; i < nonzeros; ++i) {
            columns_[i] = static_cast<std::int32_t>(columns[i]);
            values_[i] = values[i];
        }
        for (index_t s = 0; s < scales_.size(); ++s) scales_[s] = scales[s];
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t nonzeros() const noexcept { return columns_.size(); }
    index_t bytes() const noexcept { return view().bytes(); }
    stored_type* values() noexcept { return values_.data(); }
    float* scales() noexcept { return scales_.data(); }

    view_type view() const& noexcept;
    void view() const&& = delete;
    explicit(false) operator view_type() const& noexcept { return view(); }
    operator view_type() const&& = delete;

private:
    friend struct detail::csr_access;

    void allocate(index_t nonzeros, index_t n, index_t k) {
        rows_ = n;
        cols_ = k;
        offsets_ = buffer<index_t>{n + 1};
        columns_ = buffer<std::int32_t>{nonzeros};
        values_ = buffer<stored_type>{nonzeros};
        scales_ = buffer<float>{detail::sparse_scales<T, Granularity>(n)};
    }

    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<index_t> offsets_;
    buffer<std::int32_t> columns_;
    buffer<stored_type> values_;
    buffer<float> scales_;
};

namespace detail {

template <class T, class G>
inline constexpr bool is_owner<csr_tensor<T, G>> = true;

struct csr_access {
    template <class T, class G>
    static csr<T, G> view(csr_tensor<T, G> const& t) noexcept {
        csr<T, G> v;
        v.offsets_ = t.offsets_.data();
        v.columns_ = t.columns_.data();
        v.values_ = t.values_.data();
        v.scales_ = t.scales_.data();
        v.rows_ = t.rows_;
        v.cols_ = t.cols_;
        return v;
    }
    /// An owner whose offsets, columns, values and scales the caller writes.
    template <class T, class G>
    static csr_tensor<T, G> make(index_t nonzeros, index_t n, index_t k) {
        csr_tensor<T, G> t;
        t.allocate(nonzeros, n, k);
        return t;
    }
    template <class T, class G>
    static index_t* offsets(csr_tensor<T, G>& t) noexcept {
        return t.offsets_.data();
    }
    template <class T, class G>
    static std::int32_t* columns(csr_tensor<T, G>& t) noexcept {
        return t.columns_.data();
    }
};

} // namespace detail

template <class T, class Granularity>
csr<T, Granularity> csr_tensor<T, Granularity>::view() const& noexcept {
    return detail::csr_access::view(*this);
}

} // namespace tessera::inline TESSERA_ABI
