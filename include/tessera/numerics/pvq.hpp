// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Pyramid vector quantisation: groups of N integers whose magnitudes add up to K, numbered without gaps.
///
///     P(N, K) = { p in Z^N : |p_0| + ... + |p_(N-1)| = K }                                                     the pyramid
///     V(n, 0) = 1    V(0, k > 0) = 0    V(n, k) = V(n - 1, k) + V(n - 1, k - 1) + V(n, k - 1)      points of P(n, k)
///
/// **Index** (Fischer's enumeration): coordinates from left to right, the values of each in the order 0, +1, -1, +2, -2, ...
/// With r coordinates and k pulses left, value 0 skips nothing, value +a skips V(r, k) + 2 sum over 0 < j < a of V(r, k - j)
/// vectors and -a V(r, k - a) more. The first vector is (0, ..., 0, K), the last one (-K, 0, ..., 0). An index takes
/// ceil(log2 V(N, K)) bits: rates need not be whole numbers of bits a weight.
///
/// **Several vectors a word** (`Together` = P): i_0 + V (i_1 + V (i_2 + ...)) takes ceil(P log2 V) bits, less than P times
/// the bits of one.
///
/// **Largest.** Vectors with a coordinate beyond `Largest` keep their index, but encoders do not choose them and decoders read
/// them, like indices of V and more, as zeros. So a decoded vector fits a small integer: 3 bits for Largest = 3, 4 for 7.
///
/// Sources: Fischer, "A Pyramid Vector Quantizer", IEEE Trans. Inf. Theory 32 (1986); arXiv:2410.16926.

#include "wide_uint.hpp"

#include <cstdint>
#include <initializer_list>

namespace tessera::inline TESSERA_ABI {

/// V(n, k) modulo 2^(64 Words) by its closed form, the sum over i of 2^i C(n, i) C(k - 1, i - 1); n and k below 2^15. The largest
/// term times 2 n k must fit.
template <int Words>
[[nodiscard]] constexpr wide_uint<Words> pvq_count(index_t n, index_t k) noexcept {
    if (k == 0) return 1;
    wide_uint<Words> term = 2 * static_cast<std::uint64_t>(n);
    wide_uint<Words> total = term;
    for (index_t i = 2; i <= minimum(n, k); ++i) {
        term *= static_cast<std::uint32_t>(2 * (n - i + 1) * (k - i + 1));
        term.divide(static_cast<std::uint32_t>(i * (i - 1)));
        total += term;
    }
    return total;
}

/// The most pulses, up to 4096, whose indices fit `bits` bits: the finest pyramid of a rate. n up to 256, bits up to 1024.
[[nodiscard]] constexpr index_t pvq_pulses(index_t n, int bits) noexcept {
    auto const fits = [&](index_t k) { return (pvq_count<26>(n, k) - 1).bit_width() <= bits; };
    index_t low = 0;
    index_t high = 1;
    while (high <= 4096 && fits(high)) {
        low = high;
        high *= 2;
    }
    high = minimum(high, 4097);
    while (high - low > 1) {
        index_t const middle = low + (high - low) / 2;
        (fits(middle) ? low : high) = middle;
    }
    return low;
}

namespace detail {

/// "pvq<32, 22, 7, 1>" as a constant.
struct pvq_name {
    char text[64] = {};
    constexpr explicit pvq_name(std::initializer_list<index_t> numbers) noexcept {
        int at = 0;
        auto const put = [&](char const* s) {
            while (*s != 0) text[at++] = *s++;
        };
        put("pvq<");
        for (index_t const number : numbers) {
            if (text[at - 1] != '<') put(", ");
            index_t unit = 1;
            while (number / unit >= 10) unit *= 10;
            for (; unit > 0; unit /= 10) text[at++] = static_cast<char>('0' + number / unit % 10);
        }
        put(">");
    }
};

/// Words that hold V(n, k) < 2^(n + k + min(n, k)) and the factors of its closed form.
constexpr int pvq_count_words(index_t n, index_t k) noexcept {
    return static_cast<int>((n + k + minimum(n, k) + 32) / 64 + 1);
}

/// Bits of words of `together` indices below V < 2^32.
template <int Words>
constexpr int pvq_word_bits(std::uint32_t count, index_t together) noexcept {
    wide_uint<Words> numbers = 1;
    for (index_t i = 0; i < together; ++i) numbers *= count;
    return (numbers - 1).bit_width();
}

/// V(n, k) for n < N, k <= K, by the recurrence.
template <index_t N, index_t K, int Words>
class pvq_table {
    static_assert(N * (K + 1) * 8 * Words <= (index_t{1} << 24), "tessera: pvq<N, K>: the table of V(n, k) is larger than 16 MiB");

public:
    using number = wide_uint<Words>;

    static pvq_table const& instance() noexcept {
        static pvq_table const table;
        return table;
    }
    /// V(n, 0), V(n, 1), ..., V(n, K).
    number const* row(index_t n) const noexcept { return counts_[n]; }

private:
    pvq_table() noexcept {
        counts_[0][0] = 1;
        for (index_t n = 1; n < N; ++n) {
            counts_[n][0] = 1;
            for (index_t k = 1; k <= K; ++k) counts_[n][k] = counts_[n - 1][k] + counts_[n - 1][k - 1] + counts_[n][k - 1];
        }
    }
    number counts_[N][K + 1] = {};
};

} // namespace detail

/// The format: groups of N weights, K pulses; see the file comment.
template <index_t N, index_t K, index_t Largest = (K < 127 ? K : 127), index_t Together = 1>
struct pvq {
    static_assert(N >= 1 && N <= 1024 && K >= 1 && K <= 4096, "tessera: pvq<N, K> needs 1 <= N <= 1024 and 1 <= K <= 4096");
    static_assert(Largest >= 1 && Largest <= 127 && Largest <= K && Largest * N >= K,
                  "tessera: pvq<N, K, Largest> needs K / N <= Largest <= min(K, 127)");
    static_assert(Together >= 1 && Together <= 64, "tessera: pvq<N, K, Largest, Together> needs 1 <= Together <= 64");

private:
    static constexpr auto exact_count = pvq_count<detail::pvq_count_words(N, K)>(N, K);
    static constexpr detail::pvq_name text{N, K, Largest, Together};

public:
    static constexpr index_t group = N;
    static constexpr index_t pulses = K;
    static constexpr index_t largest = Largest;
    /// Vectors of a word.
    static constexpr index_t together = Together;
    static constexpr char const* name = text.text;
    /// ceil(log2 V(N, K))
    static constexpr int index_bits = (exact_count - 1).bit_width();
    static_assert(Together == 1 || index_bits <= 31,
                  "tessera: pvq<N, K, Largest, Together>: vectors that share a word have fewer than 2^31 indices");
    using index_type = wide_uint<(index_bits + 63) / 64>;
    /// V(N, K)
    static constexpr index_type count{exact_count};
    static_assert(count.bit_width() == exact_count.bit_width(), "tessera: pvq<N, K>: V(N, K) is a power of 2^64");
    /// Bits of `Together` indices.
    static constexpr int word_bits = [] {
        if constexpr (Together == 1)
            return index_bits;
        else
            return detail::pvq_word_bits<static_cast<int>(Together / 2 + 1)>(static_cast<std::uint32_t>(count.word(0)), Together);
    }();
    using word_type = wide_uint<(word_bits + 63) / 64>;

    /// The index of a vector whose magnitudes add up to K.
    [[nodiscard]] static index_type index(std::int8_t const* p) noexcept { // (N)
        table const& v = table::instance();
        index_type result;
        index_t k = K;
        for (index_t n = 0; n < N && k > 0; ++n) {
            if (p[n] == 0) continue;
            index_t const magnitude = p[n] < 0 ? -p[n] : p[n];
            auto const* const row = v.row(N - 1 - n);
            result += row[k];
            for (index_t a = 1; a < magnitude; ++a) {
                result += row[k - a];
                result += row[k - a];
            }
            k -= magnitude;
            if (p[n] < 0) result += row[k];
        }
        return result;
    }

    /// The vector of an index; zeros where there is none, or none within `Largest`.
    static void vector(index_type index, std::int8_t* p) noexcept { // (N)
        if (!decode(index, p))
            for (index_t n = 0; n < N; ++n) p[n] = 0;
    }

private:
    using table = detail::pvq_table<N, K, index_type::words>;

    static bool decode(index_type index, std::int8_t* p) noexcept {
        if (!(index < count)) return false;
        table const& v = table::instance();
        index_t k = K;
        index_t n = 0;
        for (; n < N && k > 0; ++n) {
            auto const* const row = v.row(N - 1 - n);
            if (index < row[k]) {
                p[n] = 0;
                continue;
            }
            index -= row[k];
            index_t magnitude = 1;
            bool negative = false;
            for (;; ++magnitude) {
                index_type const& skipped = row[k - magnitude];
                if (index < skipped) break;
                index -= skipped;
                negative = index < skipped;
                if (negative) break;
                index -= skipped;
            }
            if (magnitude > Largest) return false;
            p[n] = static_cast<std::int8_t>(negative ? -magnitude : magnitude);
            k -= magnitude;
        }
        for (; n < N; ++n) p[n] = 0;
        return true;
    }
};

} // namespace tessera::inline TESSERA_ABI
