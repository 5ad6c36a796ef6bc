// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Matrices into codes with tables (storage/table_quantized.hpp):
///
///     auto const q = quantize_tables<table_quantized<3, per_channel>>(w);                // tables fitted by k-means
///     auto const f = quantize_with_table<table_quantized<4, per_tensor, fp16, scaled_by<fp16, group<64>>>>(w, normal_float_levels(4));
///     apply(exec, linear{q}, x, y);
///
/// `quantize_tables` fits each table to its weights by weighted k-means (SqueezeLLM, arXiv:2306.07629: the weights of the mean
/// are diagonals of the Fisher information, any numbers of at least 0, 1 each by default), from intervals of equal weight.
/// Scales, where there are some, are the largest magnitude of their group, and tables are fitted to what they leave.
/// `quantize_with_table` takes one ascending table for all, with the scale largest magnitude / largest of the table.
/// The code of a weight is the number of midpoints of the ascending table below it: the nearest value, a tie the lower.
///
/// Scales and tables are rounded to their stored type first, saturating, and codes are chosen for what is stored. A group of
/// zeros has scale 0. Finite weights decode to finite numbers. A weight that is not finite makes the scale of its group, or its whole
/// table, NaN: what shares it decodes to NaN.
///
/// `normal_float_levels` are the values of NormalFloat (QLoRA, arXiv:2305.14314; NFL of FLUTE learns scales beside them).

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../storage/table_quantized.hpp"
#include "../storage/tensor.hpp"
#include "kmeans.hpp"
#include "vector_place.hpp"

#include <cmath>
#include <limits>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A number as float or fp16, saturating; NaN stays.
template <class T>
T saturated(float x) noexcept {
    constexpr float largest = std::numeric_limits<float>::max();
    if constexpr (std::is_same_v<T, float>)
        return x > largest ? largest : x < -largest ? -largest : x;
    else
        return T::from_bits(static_cast<std::uint16_t>(T::encode(x, rounding::nearest_even, overflow::saturate)));
}

/// The largest float or fp16 whose product with x, of at least 1, is a finite float.
template <class T>
T largest_factor(float x) noexcept {
    constexpr float largest = std::numeric_limits<float>::max();
    float const factor = largest / x;
    if constexpr (std::is_same_v<T, float>)
        return factor * x > largest ? std::nextafter(factor, 0.0f) : factor;
    else
        return T::from_bits(static_cast<std::uint16_t>(T::encode(factor, rounding::toward_zero, overflow::saturate)));
}

/// The number of midpoints of an ascending table below x.
inline std::uint32_t nearest_code(std::span<float const> table, float x) noexcept {
    std::size_t low = 0;
    std::size_t high = table.size() - 1;
    while (low < high) {
        std::size_t const middle = (low + high) / 2;
        if (0.5 * (static_cast<double>(table[middle]) + static_cast<double>(table[middle + 1])) < static_cast<double>(x))
            low = middle + 1;
        else
            high = middle;
    }
    return static_cast<std::uint32_t>(low);
}

/// The owner of a look-up view.
template <class Storage>
struct owner_of_table;
template <int Bits, class G, class V, class S>
struct owner_of_table<table_quantized<Bits, G, V, S>> {
    using type = table_quantized_tensor<Bits, G, V, S>;
};

/// The inverse of the normal distribution, by Newton's steps on erfc; 0 < p < 1.
inline double normal_quantile(double p) noexcept {
    double x = 0;
    for (int i = 0; i < 60; ++i) {
        double const error = 0.5 * std::erfc(-x / std::numbers::sqrt2) - p;
        double const slope = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
        double const step = error / slope;
        x -= std::clamp(step, -0.5, 0.5);
        if (std::fabs(step) < 1e-15) break;
    }
    return x;
}

template <class Storage>
class table_quantizer {
    using owner = typename owner_of_table<Storage>::type;
    using value_type = typename Storage::value_type;
    static constexpr bool has_scale = Storage::has_scale;

public:
    table_quantizer(matrix_view<float const> const& w, matrix_view<float const> const& importance)
        : w_{w}, importance_{importance}, out_{w.extent(0), w.extent(1)}, group_{out_.view().group()},
          scale_(has_scale ? static_cast<std::size_t>(Storage::scale_count(w.extent(0), w.extent(1))) : 0) {}

    /// Tables fitted to blocks of weights.
    owner fit() {
        set_scales(1.0f, 1.0f);
        index_t const rows = Storage::tables == table_kind::tensor ? maximum(w_.extent(0), 1) : 1;
        index_t const columns = Storage::tables == table_kind::group ? group_ : maximum(w_.extent(1), 1);
        index_t table = 0;
        for (index_t n = 0; n < w_.extent(0); n += rows)
            for (index_t k = 0; k < w_.extent(1); k += columns, ++table) {
                index_t const n1 = minimum(n + rows, w_.extent(0));
                index_t const k1 = minimum(k + columns, w_.extent(1));
                encode(table, fitted(n, n1, k, k1), n, n1, k, k1);
            }
        return std::move(out_);
    }
    owner with(std::span<float const> table) {
        float largest = 0, largest_stored = 0;
        for (float const v : table) {
            largest = std::fmax(largest, std::fabs(v));
            largest_stored = std::fmax(largest_stored, std::fabs(static_cast<float>(saturated<value_type>(v))));
        }
        set_scales(largest, largest_stored);
        std::vector<float> values{table.begin(), table.end()};
        if (!has_scale && !is_finite()) values.assign(values.size(), std::numeric_limits<float>::quiet_NaN());
        encode(0, std::move(values), 0, w_.extent(0), 0, w_.extent(1));
        return std::move(out_);
    }

private:
    bool is_finite() const noexcept {
        for (index_t n = 0; n < w_.extent(0); ++n)
            for (index_t k = 0; k < w_.extent(1); ++k)
                if (!std::isfinite(w_(n, k))) return false;
        return true;
    }
    /// `largest_stored`: of the table as it is stored.
    void set_scales(float largest_of_table, float largest_stored) {
        if constexpr (has_scale) {
            index_t at = 0;
            for (index_t n = 0; n < w_.extent(0); ++n)
                for (index_t k = 0; k < w_.extent(1); k += group_, ++at) {
                    float a = 0;
                    for (index_t i = k; i < minimum(k + group_, w_.extent(1)); ++i) {
                        float const v = std::fabs(w_(n, i));
                        a = v <= std::numeric_limits<float>::max() ? std::fmax(a, v) : std::numeric_limits<float>::quiet_NaN();
                        if (a != a) break;
                    }
                    auto stored = saturated<typename Storage::stored_scale>(a / largest_of_table);
                    if (largest_stored * static_cast<float>(stored) > std::numeric_limits<float>::max())
                        stored = largest_factor<typename Storage::stored_scale>(largest_stored);
                    out_.scales()[at] = stored;
                    scale_[static_cast<std::size_t>(at)] = static_cast<float>(stored);
                }
        }
    }
    /// The scale of a weight; 1 where there is none.
    float scale(index_t n, index_t k) const noexcept {
        if constexpr (has_scale)
            return scale_[static_cast<std::size_t>(n * ceil_div(w_.extent(1), group_) + k / group_)];
        else
            return static_cast<void>(n), static_cast<void>(k), 1.0f;
    }
    /// w / scale; 0 where the scale is 0 or NaN.
    float scaled_weight(index_t n, index_t k) const noexcept {
        float const s = scale(n, k);
        return s > 0 ? w_(n, k) / s : has_scale ? 0.0f : w_(n, k);
    }
    std::vector<float> fitted(index_t n0, index_t n1, index_t k0, index_t k1) const {
        std::vector<float> value;
        std::vector<float> weight;
        float widest = 0;
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) widest = std::fmax(widest, scale(n, k)); // drops NaN
        int const unit = widest > 0 && widest <= std::numeric_limits<float>::max() ? std::ilogb(widest) + 1 : 0;
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) {
                float const s = scale(n, k);
                if (has_scale && !(s > 0)) continue;
                float const v = scaled_weight(n, k);
                if (!(std::fabs(v) <= std::numeric_limits<float>::max()))
                    return std::vector<float>(static_cast<std::size_t>(Storage::table_size), std::numeric_limits<float>::quiet_NaN());
                value.push_back(v);
                float const relative = std::scalbn(s, -unit); // at most 1, so that its square is a float
                if (!importance_.empty()) weight.push_back(importance_(n, k) * relative * relative);
            }
        sorted_samples const sorted{value.data(), weight.empty() ? nullptr : weight.data(), static_cast<index_t>(value.size())};
        // Under scales that saturated, the largest times its value is a float.
        double const most = static_cast<double>(std::numeric_limits<float>::max()) / static_cast<double>(std::fmax(widest, 1.0f)) * (1 - 0x1p-23);
        std::vector<float> table;
        for (double const c : kmeans_1d(sorted, Storage::table_size).centroid)
            table.push_back(static_cast<float>(!has_scale || c != c ? c : c > most ? most : c < -most ? -most : c));
        return table;
    }
    void encode(index_t index, std::vector<float> table, index_t n0, index_t n1, index_t k0, index_t k1) {
        value_type* const to = out_.values() + index * Storage::table_size;
        for (std::size_t c = 0; c < table.size(); ++c) {
            to[c] = saturated<value_type>(table[c]);
            table[c] = static_cast<float>(to[c]);
        }
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k)
                bitpack::set<Storage::code_bits>(out_.codes() + n * bitpack::bytes(w_.extent(1), Storage::code_bits), k,
                                                 nearest_code(table, scaled_weight(n, k)));
    }

    matrix_view<float const> w_;
    matrix_view<float const> importance_;
    owner out_;
    index_t group_;
    std::vector<float> scale_;
};

inline void check_importance(char const* operation, matrix_view<float const> const& w, matrix_view<float const> const& importance) {
    check::elements(operation, "w", w);
    if (importance.empty()) return;
    check::equal(operation, "rows of the importance", importance.extent(0), w.extent(0), "rows of w");
    check::equal(operation, "columns of the importance", importance.extent(1), w.extent(1), "columns of w");
    check::elements(operation, "the importance", importance);
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t k = 0; k < w.extent(1); ++k)
            if (!(importance(n, k) >= 0 && importance(n, k) <= std::numeric_limits<float>::max()))
                raise<shape_error>("tessera: " + std::string{operation} + ": the importance of weight (" + std::to_string(n) +
                                   ", " + std::to_string(k) + ") is " + std::to_string(importance(n, k)) + ", expected 0 or more");
}

} // namespace detail

/// w (n, k) with fitted tables; see the file comment. @param importance (n, k), or empty: 1 each. O(n k log(n k)).
template <class Storage>
auto quantize_tables(matrix_view<float const> const& w, matrix_view<float const> const& importance = {}) {
    detail::check_importance("quantize_tables", w, importance);
    return detail::table_quantizer<Storage>{w, importance}.fit();
}
template <class Storage>
auto quantize_tables(matrix<float> const& w) {
    return quantize_tables<Storage>(w.view());
}

/// w (n, k) with one table, ascending, of 2^Bits numbers; see the file comment.
template <class Storage>
auto quantize_with_table(matrix_view<float const> const& w, std::span<float const> table) {
    static_assert(Storage::tables == detail::table_kind::tensor, "tessera: quantize_with_table: the table is that of the tensor");
    check::elements("quantize_with_table", "w", w);
    check::equal("quantize_with_table", "numbers in the table", static_cast<index_t>(table.size()), Storage::table_size, "2^Bits");
    for (std::size_t i = 0; i < table.size(); ++i)
        if (!std::isfinite(table[i]))
            detail::raise<shape_error>("tessera: quantize_with_table: number " + std::to_string(i) + " of the table is " +
                                       std::to_string(table[i]) + ", expected a finite number");
    for (std::size_t i = 1; i < table.size(); ++i)
        if (!(table[i - 1] < table[i]))
            detail::raise<shape_error>("tessera: quantize_with_table: number " + std::to_string(i) + " of the table is " +
                                       std::to_string(table[i]) + ", expected above " + std::to_string(table[i - 1]) +
                                       " (the one before)");
    return detail::table_quantizer<Storage>{w, {}}.with(table);
}
template <class Storage>
auto quantize_with_table(matrix<float> const& w, std::span<float const> table) {
    return quantize_with_table<Storage>(w.view(), table);
}

/// The 2^bits values of NormalFloat: quantiles of the normal distribution at p between 1 - p0 and p0 = 0.9677, with 0 exactly, over the
/// largest. NF4 of the field is `nf4`, whose numbers are float32 artefacts of this rule, within 2e-7.
inline std::vector<float> normal_float_levels(int bits) {
    check::within("normal_float_levels", "bits", bits, 2, 8);
    double const p0 = 1.0 - (1.0 / 32 + 1.0 / 30) / 2;
    int const half = 1 << (bits - 1);
    double const largest = detail::normal_quantile(p0);
    std::vector<float> levels;
    for (int i = 0; i < half; ++i) { // p from p0 to a half, negated: 0 is the last
        double const p = p0 + (0.5 - p0) * i / (half - 1);
        levels.push_back(i + 1 == half ? 0.0f : static_cast<float>(-detail::normal_quantile(p) / largest));
    }
    for (int i = 1; i <= half; ++i) levels.push_back(static_cast<float>(detail::normal_quantile(0.5 + (p0 - 0.5) * i / half) / largest));
    return levels;
}

} // namespace tessera::inline TESSERA_ABI
