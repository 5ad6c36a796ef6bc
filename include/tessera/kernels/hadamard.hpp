// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Hadamard matrices of the orders that transforms use: H = H_B (x) H_2 (x) ... (x) H_2, natural (Sylvester's) order: element
/// (b 2^p + i, c 2^p + j) is H_B(b, c) (-1)^popcount(i & j). B is 1, or a multiple of four of at most 256 by one of these, in this
/// order; q is an odd prime or the square of one, chi the quadratic character of GF(q):
///
/// * 52, 156, 172 (LLaMA's 11008 = 64 * 172): Williamson's, four symmetric circulants, [A B C D; -B A -D C; -C D A -B; -D -C B A];
/// * 40 = H_2 (x) H_20, of which 20 times any other power of two is made;
/// * B = q + 1, q = 3 mod 4 (Paley's first): H(0, 0) = H(i, 0) = H(i, i) = 1, H(0, j) = -1, H(i, j) = chi(i - j);
/// * B = 2 (q + 1), q = 1 mod 4 (Paley's second): [C + 1, C - 1; C - 1, -C - 1], C(0, 0) = 0, C(0, j) = C(i, 0) = 1, C(i, j) = chi(i - j).
///
/// So 12, 20, 28, 36, 44, 52, 60, 68, 76, 84, 100, 108, 124, 132, 140, 148, 156, 164, 172, ...; not 92 and 116. Some are not
/// symmetric: the inverse uses the transpose. The matrices of 12, 20, 28, 36, 40, 52, 60, 108, 140, 156 and 172 are, sign by sign, those
/// of N. Sloane's library that QuaRot's tables have, so that weights rotated by those are met by these.

#include "../core/philox.hpp"
#include "../core/types.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

namespace op {

/// Rows times a Hadamard matrix: see kernels/ref/hadamard.hpp.
struct hadamard {};

} // namespace op

namespace detail {

/// A finite field of q = p or p^2 elements, as far as its quadratic character goes.
class quadratic_character {
public:
    static constexpr index_t most = 256;

    /// q of at most `most`; `exists()` is false where it is neither an odd prime nor the square of one.
    constexpr explicit quadratic_character(index_t q) noexcept {
        if (q < 3 || q > most || q % 2 == 0) return;
        p_ = q;
        for (index_t d = 3; d * d <= q; d += 2)
            if (q % d == 0) {
                p_ = d;
                break;
            }
        is_square_ = p_ * p_ == q;
        if (p_ != q && !is_square_) return;
        q_ = q;
        for (index_t i = 1; i < p_; ++i) is_residue_[i * i % p_] = true;
        for (index_t d = 2; d < p_ && nonresidue_ == 0; ++d)
            if (!is_residue_[d]) nonresidue_ = d;
    }
    constexpr bool exists() const noexcept { return q_ > 0; }
    /// chi(a - b). Elements of GF(p^2) are x + y sqrt(d) with number x + y p; chi is that of the norm x^2 - d y^2 in GF(p).
    constexpr int operator()(index_t a, index_t b) const noexcept {
        index_t const x = (a % p_ - b % p_ + p_) % p_;
        index_t const y = (a / p_ - b / p_ + p_) % p_;
        index_t const norm = is_square_ ? (x * x + (p_ - nonresidue_) * (y * y % p_)) % p_ : x;
        if (norm == 0) return 0;
        return is_residue_[norm] ? 1 : -1;
    }

private:
    index_t q_ = 0;
    index_t p_ = 3;
    index_t nonresidue_ = 0;
    bool is_square_ = false;
    bool is_residue_[most] = {};
};

/// The first rows of Williamson's circulants of order B / 4: bit i set where element i is -1.
struct williamson_rows {
    index_t order;
    std::uint64_t row[4];
};
inline constexpr williamson_rows williamson[] = {
    {52, {0x161a, 0x1c0e, 0xb34, 0x1ede}},
    {156, {0x1afb3cdf58, 0x0ecf5af370, 0x1975bdae98, 0x72be247d4e}},
    {172, {0x730a26450ce, 0x207ac935e04, 0x14d42f42b28, 0x385b3fcda1c}},
};
/// Null where there are none.
constexpr williamson_rows const* williamson_of(index_t order) noexcept {
    for (williamson_rows const& w : williamson)
        if (w.order == order) return &w;
    return nullptr;
}
constexpr float williamson_element(williamson_rows const& w, index_t i, index_t j) noexcept {
    constexpr int block[4][4] = {{1, 2, 3, 4}, {-2, 1, -4, 3}, {-3, 4, 1, -2}, {-4, -3, 2, 1}};
    index_t const q = w.order / 4;
    int const which = block[i / q][j / q];
    bool const is_minus = (w.row[(which < 0 ? -which : which) - 1] >> ((j % q - i % q + q) % q) & 1u) != 0;
    return is_minus == (which < 0) ? 1.0f : -1.0f;
}

/// Whether there is a block of order B.
constexpr bool has_hadamard_block(index_t order) noexcept {
    if (order == 1) return true;
    if (order < 4 || order > 256 || order % 4 != 0) return false;
    if (williamson_of(order) != nullptr || order == 40) return true;
    if (quadratic_character{order - 1}.exists()) return true; // q = order - 1 is 3 mod 4
    index_t const q = order / 2 - 1;
    return q % 4 == 1 && quadratic_character{q}.exists();
}

/// signs[i * order + j] = H_B(i, j).
inline void fill_hadamard_block(index_t order, float* signs) noexcept {
    if (order == 1) {
        signs[0] = 1.0f;
        return;
    }
    if (williamson_rows const* const w = williamson_of(order); w != nullptr) {
        for (index_t i = 0; i < order; ++i)
            for (index_t j = 0; j < order; ++j) signs[i * order + j] = williamson_element(*w, i, j);
        return;
    }
    if (order == 40) { // H_2 (x) H_20
        float twenty[20 * 20];
        fill_hadamard_block(20, twenty);
        for (index_t i = 0; i < order; ++i)
            for (index_t j = 0; j < order; ++j)
                signs[i * order + j] = (i >= 20 && j >= 20 ? -1.0f : 1.0f) * twenty[i % 20 * 20 + j % 20];
        return;
    }
    if (quadratic_character const chi{order - 1}; chi.exists()) {
        for (index_t i = 0; i < order; ++i)
            for (index_t j = 0; j < order; ++j)
                signs[i * order + j] = j == 0 || i == j ? 1.0f : i == 0 ? -1.0f : static_cast<float>(chi(i - 1, j - 1));
        return;
    }
    index_t const half = order / 2;
    quadratic_character const chi{half - 1};
    for (index_t i = 0; i < order; ++i)
        for (index_t j = 0; j < order; ++j) {
            index_t const a = i % half;
            index_t const b = j % half;
            int const c = a == b ? 0 : a == 0 || b == 0 ? 1 : chi(a - 1, b - 1);
            int const sign = i < half || j < half ? 1 : -1;
            int const one = i < half && j < half ? 1 : -1;
            signs[i * order + j] = static_cast<float>(sign * c + (a == b ? one : 0));
        }
}

/// How rows of `size` numbers are transformed: in groups, the last one filled up with zeros.
struct hadamard_shape {
    index_t size = 0;  ///< numbers of a row that is not transformed
    index_t group = 1; ///< order of the matrix: block * power
    index_t block = 1; ///< B
    index_t power = 1; ///< 2^p
    std::uint64_t seed = 0;
    bool has_signs = false;
    bool is_transposed = false;

    constexpr index_t padded() const noexcept { return round_up(size, group); }
    constexpr index_t rows() const noexcept { return is_transposed ? size : padded(); }
    constexpr index_t cols() const noexcept { return is_transposed ? padded() : size; }
    /// The sign of number i of a row that is not transformed.
    constexpr float sign(index_t i) const noexcept {
        if (!has_signs) return 1.0f;
        return (philox{seed}.bits(static_cast<std::uint64_t>(i / 32)) >> (i % 32) & 1u) != 0 ? -1.0f : 1.0f;
    }
    /// Floats of scratch that transforms share: signs, then the block.
    constexpr index_t table_floats() const noexcept { return round_up(padded(), 16) + block * block; }

    friend constexpr bool operator==(hadamard_shape const&, hadamard_shape const&) noexcept = default;
};

/// The largest power of two with the smallest block for a matrix of order n; block 0 where there is none.
constexpr hadamard_shape hadamard_of_order(index_t n) noexcept {
    hadamard_shape s;
    s.group = n;
    s.block = 0;
    for (index_t power = n & -n; power >= 1 && n > 0; power /= 2)
        if (n / power <= 256 && has_hadamard_block(n / power)) {
            s.block = n / power;
            s.power = power;
            if (s.block == 20 && power > 1) {
                s.block = 40;
                s.power = power / 2;
            }
            return s;
        }
    return s;
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
