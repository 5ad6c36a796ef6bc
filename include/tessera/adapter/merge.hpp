// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `merge`: a weight with an adapter inside, in the weight's own format, and what that cost.
///
///     auto const m = ts::merge(q.view(), adapter);                // adapter: low_rank of dense factors, scale included
///     m.weights;                                                  // quantized_tensor of the same scheme
///     m.error.snr_db, m.error.adapter_snr_db, m.error.max_error;
///     ts::merge(q.view(), adapter, factors);                      // DoRA: diag(factors) (W + s B A), factors of dora_factors
///
/// W + s B A is summed in double. A dense weight is rounded once, to nearest even of its type. A quantised one is decoded, added
/// to, and quantised again in its scheme (its min-max rule, as `quantize`; blocks of GGUF files by their format's encoder), so
/// that the weights themselves are rounded a second time: the error says whether the adapter survives that. Not merged
/// (`linear{q} + adapter`) nothing is lost, for r (n + k) more products a row of x.

#include "../operators/diagonal.hpp"
#include "../quant/quantize.hpp"
#include "combine.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// What merged weights lack to the exact W + s B A.
struct merge_error {
    double snr_db = 0;         ///< power of the exact weights over that of the error, in decibels; infinity: no error
    double adapter_snr_db = 0; ///< power of the change that was merged over that of the error: near 0 little of it is left
    double max_error = 0;      ///< largest magnitude of an element's error
};

/// Weights of which an adapter is part, and what that cost.
template <class Weights>
struct merged {
    Weights weights;
    merge_error error;
};

namespace detail {

/// Nearest float, but a float of odd last bit where it is not exact: what is rounded from that to fewer bits is rounded once.
inline float round_to_odd(double x) noexcept {
    float const nearest = static_cast<float>(x);
    if (static_cast<double>(nearest) == x || x != x || std::isinf(nearest)) return nearest;
    auto bits = std::bit_cast<std::uint32_t>(nearest);
    if (std::fabs(static_cast<double>(nearest)) > std::fabs(x)) --bits; // toward zero
    return std::bit_cast<float>(bits | 1u);
}

template <class T>
T round_once(double x) noexcept {
    if constexpr (std::same_as<T, float>)
        return static_cast<float>(x);
    else
        return static_cast<T>(round_to_odd(x));
}

/// Rows of diag(f) (W + s B A) in double.
template <class Base>
class merged_rows {
public:
    merged_rows(Base const& base, dense_low_rank const& adapter, float const* factors)
        : base_{base}, adapter_{adapter}, factors_{factors}, exact_(static_cast<std::size_t>(adapter.cols())) {}

    std::vector<double> const& operator()(index_t n) {
        auto const b = adapter_.b().storage();
        auto const a = adapter_.a().storage();
        for (double& v : exact_) v = 0;
        for (index_t r = 0; r < adapter_.rank(); ++r) {
            double const factor = static_cast<double>(adapter_.factor()) * static_cast<double>(b(n, r));
            for (index_t k = 0; k < adapter_.cols(); ++k) exact_[static_cast<std::size_t>(k)] += factor * static_cast<double>(a(r, k));
        }
        double const f = factors_ == nullptr ? 1.0 : static_cast<double>(factors_[n]);
        for (index_t k = 0; k < adapter_.cols(); ++k) {
            double& v = exact_[static_cast<std::size_t>(k)];
            v = f * (v + original(n, k));
        }
        return exact_;
    }
    double original(index_t n, index_t k) const noexcept { return static_cast<double>(static_cast<float>(base_(n, k))); }

    template <class Merged>
    merge_error error_of(Merged const& merged) {
        double exact_power = 0;
        double change_power = 0;
        double error_power = 0;
        merge_error e;
        for (index_t n = 0; n < adapter_.rows(); ++n) {
            auto const& row = (*this)(n);
            for (index_t k = 0; k < adapter_.cols(); ++k) {
                double const exact = row[static_cast<std::size_t>(k)];
                double const change = exact - original(n, k);
                double const error = static_cast<double>(static_cast<float>(merged(n, k))) - exact;
                exact_power += exact * exact;
                change_power += change * change;
                error_power += error * error;
                if (!(std::fabs(error) <= e.max_error) && !std::isnan(e.max_error)) e.max_error = std::fabs(error); // NaN stays
            }
        }
        auto const decibels = [&](double power) {
            return error_power == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(power / error_power);
        };
        e.snr_db = decibels(exact_power);
        e.adapter_snr_db = decibels(change_power);
        return e;
    }

private:
    Base base_;
    dense_low_rank adapter_;
    float const* factors_;
    std::vector<double> exact_;
};

template <class T>
merged<matrix<T>> merge_stored(matrix_view<T const> const& base, merged_rows<matrix_view<T const>>& rows) {
    merged<matrix<T>> out{matrix<T>{base.extent(0), base.extent(1)}, {}};
    for (index_t n = 0; n < base.extent(0); ++n) {
        auto const& row = rows(n);
        for (index_t k = 0; k < base.extent(1); ++k) out.weights(n, k) = round_once<T>(row[static_cast<std::size_t>(k)]);
    }
    out.error = rows.error_of(out.weights);
    return out;
}

template <class Base>
matrix<float> merged_floats(Base const& base, merged_rows<Base>& rows) {
    matrix<float> out{base.rows(), base.cols()};
    for (index_t n = 0; n < base.rows(); ++n) {
        auto const& row = rows(n);
        for (index_t k = 0; k < base.cols(); ++k) out(n, k) = static_cast<float>(row[static_cast<std::size_t>(k)]);
    }
    return out;
}

template <class Scheme>
merged<quantized_tensor<Scheme>> merge_stored(quantized<Scheme> const& base, merged_rows<quantized<Scheme>>& rows) {
    merged<quantized_tensor<Scheme>> out{quantize<Scheme>(merged_floats(base, rows)), {}};
    out.error = rows.error_of(out.weights.view());
    return out;
}

template <block_format Format>
merged<blocked_tensor<Format>> merge_stored(blocked<Format> const& base, merged_rows<blocked<Format>>& rows) {
    merged<blocked_tensor<Format>> out{blocked_tensor<Format>{base.rows(), base.cols()}, {}};
    matrix<float> const exact = merged_floats(base, rows);
    for (index_t n = 0; n < base.rows(); ++n)
        encode_row<Format>(exact.data() + n * base.cols(), base.cols(), out.weights.row(n));
    out.error = rows.error_of(out.weights.view());
    return out;
}

template <class Storage>
inline constexpr bool is_merge_storage = dense_storage<Storage>;
template <class Scheme>
inline constexpr bool is_merge_storage<quantized<Scheme>> = true;
template <class Format>
inline constexpr bool is_merge_storage<blocked<Format>> = true;

template <class Base>
auto merge_checked(Base const& base, dense_low_rank const& adapter, float const* factors) {
    using operand = decltype(linear{base});
    if constexpr (is_merge_storage<std::remove_cvref_t<decltype(std::declval<operand const&>().storage())>>) {
        operand const w{base}; // its shape, and that it has data
        check::equal("merge", "rows of the adapter", adapter.rows(), w.rows(), "rows of the base");
        check::equal("merge", "columns of the adapter", adapter.cols(), w.cols(), "columns of the base");
        merged_rows<std::remove_cvref_t<decltype(w.storage())>> rows{w.storage(), adapter, factors};
        return merge_stored(w.storage(), rows);
    } else {
        static_assert(always_false<Base>, "tessera: merge: the base is a view or an owner of dense, quantised or blocked weights");
    }
}

} // namespace detail

/// base + adapter in the base's format; see the file comment. The base is a view of a dense, quantised or blocked matrix, or
/// its owner. O(n k r). @throws shape_error where shapes differ, std::bad_alloc
template <class Base>
auto merge(Base const& base, dense_low_rank const& adapter) {
    return detail::merge_checked(base, adapter, nullptr);
}

/// diag(factors) (base + adapter): DoRA with the factors of `dora_factors`.
template <class Base, class F>
auto merge(Base const& base, dense_low_rank const& adapter, F const& factors) { // (n)
    vector_view<float const> const f = detail::factors_of(factors);
    check::equal("merge", "number of factors", f.extent(0), adapter.rows(), "rows of the adapter");
    check::not_null("merge", "the factors", f.data_handle(), f.extent(0));
    check::equal("merge", "distance of the factors", f.extent(0) > 1 ? f.stride(0) : 1, 1, "they are contiguous");
    return detail::merge_checked(base, adapter, f.data_handle());
}

} // namespace tessera::inline TESSERA_ABI
