// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `wide_uint<Words>`: unsigned integers of 64 Words bits, for counts and indices of vector codes that no built-in type holds.
/// Arithmetic is modulo 2^(64 Words), as it is of built-in types. What enumeration needs is here: sums, differences, order,
/// products with and quotients by 32-bit numbers.

#include "../core/macros.hpp"
#include "../core/types.hpp"

#include <bit>
#include <compare>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// See the file comment.
template <int Words>
class wide_uint {
    static_assert(Words >= 1, "tessera: wide_uint<Words> has at least one word");

public:
    static constexpr int words = Words;

    constexpr wide_uint() noexcept = default;
    constexpr explicit(false) wide_uint(std::uint64_t value) noexcept : word_{value} {}
    /// The low words of a wider number, or a narrower one with zeros above.
    template <int Other>
    constexpr explicit wide_uint(wide_uint<Other> const& other) noexcept {
        constexpr int both = Words < Other ? Words : Other;
        for (int i = 0; i < both; ++i) word_[i] = other.word(i);
    }

    /// Bits [64 i, 64 i + 64).
    constexpr std::uint64_t word(int i) const noexcept { return word_[i]; }
    constexpr void set_word(int i, std::uint64_t value) noexcept { word_[i] = value; }

    constexpr wide_uint& operator+=(wide_uint const& other) noexcept {
        std::uint64_t carry = 0;
        for (int i = 0; i < Words; ++i) {
            std::uint64_t const sum = word_[i] + other.word_[i];
            std::uint64_t const total = sum + carry;
            carry = static_cast<std::uint64_t>(sum < word_[i]) | static_cast<std::uint64_t>(total < sum);
            word_[i] = total;
        }
        return *this;
    }
    constexpr wide_uint& operator-=(wide_uint const& other) noexcept {
        std::uint64_t borrow = 0;
        for (int i = 0; i < Words; ++i) {
            std::uint64_t const difference = word_[i] - other.word_[i];
            std::uint64_t const total = difference - borrow;
            borrow = static_cast<std::uint64_t>(word_[i] < other.word_[i]) | static_cast<std::uint64_t>(difference < borrow);
            word_[i] = total;
        }
        return *this;
    }
    constexpr wide_uint& operator*=(std::uint32_t factor) noexcept {
        std::uint64_t carry = 0;
        for (std::uint64_t& w : word_) {
            std::uint64_t const low = (w & half) * factor + carry;
            std::uint64_t const high = (w >> 32) * factor + (low >> 32);
            w = high << 32 | (low & half);
            carry = high >> 32;
        }
        return *this;
    }
    /// Becomes the quotient; returns the remainder.
    constexpr std::uint32_t divide(std::uint32_t divisor) noexcept {
        std::uint64_t rest = 0;
        for (int i = Words; i-- > 0;) {
            std::uint64_t const high = rest << 32 | word_[i] >> 32;
            std::uint64_t const low = high % divisor << 32 | (word_[i] & half);
            word_[i] = high / divisor << 32 | low / divisor;
            rest = low % divisor;
        }
        return static_cast<std::uint32_t>(rest);
    }

    friend constexpr wide_uint operator+(wide_uint a, wide_uint const& b) noexcept { return a += b; }
    friend constexpr wide_uint operator-(wide_uint a, wide_uint const& b) noexcept { return a -= b; }
    friend constexpr bool operator==(wide_uint const&, wide_uint const&) noexcept = default;
    friend constexpr std::strong_ordering operator<=>(wide_uint const& a, wide_uint const& b) noexcept {
        for (int i = Words; i-- > 1;)
            if (a.word_[i] != b.word_[i]) return a.word_[i] <=> b.word_[i];
        return a.word_[0] <=> b.word_[0];
    }

    /// Bits up to the highest that is set; 0 for zero.
    constexpr int bit_width() const noexcept {
        for (int i = Words; i-- > 0;)
            if (word_[i] != 0) return 64 * i + static_cast<int>(std::bit_width(word_[i]));
        return 0;
    }

private:
    static constexpr std::uint64_t half = 0xffffffffu;
    std::uint64_t word_[Words] = {};
};

} // namespace tessera::inline TESSERA_ABI
