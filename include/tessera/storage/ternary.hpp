// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Ternary weights, five to a byte: 1.6 bits a weight where 2-bit codes take 2. `base3<Scheme>` is a view of a matrix (n, k) of
/// `scheme<ternary, ...>`, `base3_tensor<Scheme>` its owner, `pack_base3` and `unpack_base3` go from and to 2-bit codes, and
/// neither changes a weight.
///
/// A row is ceil(k / 5) bytes; a byte is t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4 with t = value + 1, t0 the first of its five columns.
/// Columns past the end are 0 weights (t = 1). Bytes above 242 are not made; they read as their remainder modulo 243. Scales lie
/// as in storage/quantized.hpp. Products read it as any coded storage: placed panels hold 2-bit codes.

#include "../core/error.hpp"
#include "../numerics/ternary.hpp"
#include "code_source.hpp"

#include <cstdint>
#include <string>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

struct base3_digits {
    std::uint8_t digit[256][5];
};
/// The five digits of every byte.
inline constexpr base3_digits digits_of_base3 = [] {
    base3_digits table{};
    for (int byte = 0; byte < 256; ++byte) {
        int rest = byte;
        for (std::uint8_t& d : table.digit[byte]) {
            d = static_cast<std::uint8_t>(rest % 3);
            rest /= 3;
        }
    }
    return table;
}();

inline constexpr int powers_of_3[5] = {1, 3, 9, 27, 81};

} // namespace detail

/// A ternary matrix (n, k), five weights to a byte; a view.
template <class Scheme>
class base3 {
    static_assert(std::is_same_v<typename Scheme::format, ternary> && !Scheme::is_affine && !Scheme::has_two_levels,
                  "tessera: base3<Scheme> stores a symmetric scheme of ternary weights with scales of one level");

public:
    using scheme_type = Scheme;
    using format = ternary;
    using two_bit = quantized<Scheme>; ///< the same matrix in 2-bit codes
    using scale_type = typename two_bit::scale_type;

    constexpr base3() noexcept = default;
    base3(std::uint8_t const* codes, scale_type const* scales, index_t n, index_t k)
        : codes_{codes}, scales_{scales}, rows_{n}, cols_{k} {
        check::within("base3", "rows", n, 0, index_t{1} << 48);
        check::within("base3", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        check::not_null("base3", "codes", codes, n * k);
        check::not_null("base3", "scales", scales, scales_of(n, k));
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    static constexpr index_t row_bytes(index_t k) noexcept { return ceil_div(k, 5); }
    static constexpr index_t scales_of(index_t n, index_t k) noexcept {
        return two_bit::scale_rows(n) * two_bit::scale_columns(k);
    }
    constexpr std::uint8_t const* codes() const noexcept { return codes_; }
    constexpr scale_type const* scales() const noexcept { return scales_; }
    /// Stored bytes: codes and scales.
    constexpr index_t bytes() const noexcept {
        return rows_ * row_bytes(cols_) + scales_of(rows_, cols_) * static_cast<index_t>(sizeof(scale_type));
    }

    /// value + 1.
    constexpr std::uint32_t code(index_t n, index_t k) const noexcept {
        return detail::digits_of_base3.digit[codes_[n * row_bytes(cols_) + k / 5]][k % 5];
    }
    constexpr float scale(index_t n, index_t k) const noexcept {
        using shares = typename Scheme::granularity_type;
        index_t const i = shares::rows == 0 ? 0 : n / maximum(shares::rows, 1);
        index_t const j = shares::columns == 0 ? 0 : k / maximum(shares::columns, 1);
        return static_cast<float>(scales_[i * two_bit::scale_columns(cols_) + j]);
    }
    /// One decoded weight.
    constexpr float operator()(index_t n, index_t k) const noexcept { return scale(n, k) * ternary::decode(code(n, k)); }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(codes_, rows_ * row_bytes(cols_));
        f(scales_, scales_of(rows_, cols_) * static_cast<index_t>(sizeof(scale_type)));
    }

private:
    std::uint8_t const* codes_ = nullptr;
    scale_type const* scales_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of such a matrix; its codes are 0 weights and its scales 0 until written. A move leaves an empty one.
template <class Scheme>
class base3_tensor {
public:
    using view_type = base3<Scheme>;
    using scale_type = typename view_type::scale_type;

    base3_tensor() noexcept = default;
    base3_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        check::within("base3_tensor", "rows", n, 0, index_t{1} << 48);
        check::within("base3_tensor", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        codes_ = buffer<std::uint8_t>{n * view_type::row_bytes(k)};
        scales_ = buffer<scale_type>{view_type::scales_of(n, k)};
        for (std::uint8_t& c : codes_) c = 121; // five times 0
        for (scale_type& s : scales_) s = scale_type{};
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const { return view().bytes(); }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    scale_type* scales() noexcept { return scales_.data(); }

    view_type view() const& { return {codes_.data(), scales_.data(), rows_, cols_}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<std::uint8_t> codes_;
    buffer<scale_type> scales_;
};

/// The same weights, five to a byte. A code 3, which no quantiser makes, is refused with format_error.
template <class Scheme>
base3_tensor<Scheme> pack_base3(quantized<Scheme> const& w) {
    base3_tensor<Scheme> out{w.rows(), w.cols()};
    index_t const bytes = base3<Scheme>::row_bytes(w.cols());
    for (index_t n = 0; n < w.rows(); ++n)
        for (index_t b = 0; b < bytes; ++b) {
            int byte = 0;
            for (index_t i = 0; i < 5; ++i) {
                std::uint32_t const code = 5 * b + i < w.cols() ? w.code(n, 5 * b + i) : 1u;
                if (code > 2)
                    detail::raise<format_error>("tessera: pack_base3: code 3 at row " + std::to_string(n) + ", column " +
                                        std::to_string(5 * b + i) + ", expected 0 to 2: -1, 0 and 1");
                byte += static_cast<int>(code) * detail::powers_of_3[i];
            }
            out.codes()[n * bytes + b] = static_cast<std::uint8_t>(byte);
        }
    for (index_t s = 0; s < base3<Scheme>::scales_of(w.rows(), w.cols()); ++s) out.scales()[s] = w.scales()[s];
    return out;
}
template <class Scheme>
base3_tensor<Scheme> pack_base3(quantized_tensor<Scheme> const& w) {
    return pack_base3(w.view());
}

/// The same weights in 2-bit codes.
template <class Scheme>
quantized_tensor<Scheme> unpack_base3(base3<Scheme> const& w) {
    quantized_tensor<Scheme> out{w.rows(), w.cols()};
    for (index_t n = 0; n < w.rows(); ++n)
        for (index_t k = 0; k < w.cols(); ++k)
            bitpack::set<2>(out.codes() + n * bitpack::bytes(w.cols(), 2), k, w.code(n, k));
    for (index_t s = 0; s < base3<Scheme>::scales_of(w.rows(), w.cols()); ++s) out.scales()[s] = w.scales()[s];
    return out;
}
template <class Scheme>
quantized_tensor<Scheme> unpack_base3(base3_tensor<Scheme> const& w) {
    return unpack_base3(w.view());
}

/// As coded storage: 2-bit codes with scales.
template <class Scheme>
struct code_source<base3<Scheme>> : code_source<quantized<Scheme>> {
    using storage = base3<Scheme>;
    static constexpr std::uint32_t code(storage const& w, index_t n, index_t k) noexcept { return w.code(n, k); }
    static constexpr float scale(storage const& w, index_t n, index_t k) noexcept { return w.scale(n, k); }
    static constexpr float minimum(storage const&, index_t, index_t) noexcept { return 0.0f; }
    static constexpr int zero_point(storage const&, index_t, index_t) noexcept { return 0; }
};

namespace detail {

template <class Scheme>
inline constexpr bool is_owner<base3_tensor<Scheme>> = true;

template <class T>
struct as_storage;
template <class Scheme>
struct as_storage<base3<Scheme>> {
    using type = base3<Scheme>;
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
