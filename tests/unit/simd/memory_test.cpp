// SPDX-License-Identifier: MIT
#include "simd_support.hpp"

#include <tessera/simd/memory.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

using namespace simd_test;

namespace {

/// n elements at the end of their own allocation: the address sanitizer sees one element too many.
template <class T>
std::vector<T> elements(index_t n) {
    std::vector<T> v(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i)
        v[static_cast<std::size_t>(i)] = static_cast<T>(ts::philox{5}.normal(static_cast<std::uint64_t>(i)));
    return v;
}

template <class T, class Arch>
void partial(Arch) {
    constexpr index_t lanes = ts::simd::lanes<Arch>;
    for (index_t n = 0; n <= lanes; ++n) {
        auto const from = elements<T>(n);
        alignas(64) float lane[lanes];
        auto const v = ts::simd::load_partial<Arch>(from.data(), n);
        v.store_aligned(lane);
        for (index_t i = 0; i < lanes; ++i)
            CHECK(lane[i] == (i < n ? static_cast<float>(from[static_cast<std::size_t>(i)]) : 0.0f));
        std::vector<T> to(static_cast<std::size_t>(n));
        ts::simd::store_partial<Arch>(to.data(), v, n);
        for (index_t i = 0; i < n; ++i) CHECK(to[static_cast<std::size_t>(i)] == from[static_cast<std::size_t>(i)]);
        // Elements beyond n keep their value.
        std::vector<T> wide(static_cast<std::size_t>(lanes), static_cast<T>(7.0f));
        ts::simd::store_partial<Arch>(wide.data(), v, n);
        for (index_t i = n; i < lanes; ++i) CHECK(wide[static_cast<std::size_t>(i)] == static_cast<T>(7.0f));
    }
}

template <class T, class Arch>
void all_codes(Arch) {
    constexpr index_t lanes = ts::simd::lanes<Arch>;
    long wrong = 0;
    for (std::uint32_t code = 0; code < 0x10000; code += static_cast<std::uint32_t>(lanes)) {
        T from[lanes];
        for (index_t i = 0; i < lanes; ++i)
            from[i] = T::from_bits(static_cast<std::uint16_t>(code + static_cast<std::uint32_t>(i)));
        float lane[lanes];
        auto const v = ts::simd::load<Arch>(from);
        ts::simd::store<Arch>(lane, v);
        T back[lanes];
        ts::simd::store<Arch>(back, v);
        for (index_t i = 0; i < lanes; ++i) {
            auto const exact = static_cast<float>(from[i]);
            bool const same = std::isnan(exact) ? std::isnan(lane[i]) && std::isnan(static_cast<float>(back[i]))
                                                : std::bit_cast<std::uint32_t>(lane[i]) ==
                                                          std::bit_cast<std::uint32_t>(exact) &&
                                                      back[i].to_bits() == from[i].to_bits();
            wrong += !same;
        }
    }
    CHECK(wrong == 0);
}

/// Every tie and its neighbours, and random bits: the vector rounding is the scalar one.
template <class T, class Arch>
void rounding(Arch) {
    constexpr index_t lanes = ts::simd::lanes<Arch>;
    long wrong = 0;
    auto const check = [&](std::uint32_t const (&bits)[lanes]) {
        float x[lanes];
        for (index_t i = 0; i < lanes; ++i) x[i] = std::bit_cast<float>(bits[i]);
        T y[lanes];
        ts::simd::store<Arch>(y, ts::simd::load<Arch>(x));
        for (index_t i = 0; i < lanes; ++i) {
            T const expected{x[i]};
            wrong += std::isnan(x[i]) ? !std::isnan(static_cast<float>(y[i])) ||
                                            std::signbit(static_cast<float>(y[i])) != std::signbit(x[i])
                                      : y[i].to_bits() != expected.to_bits();
        }
    };
    std::uint32_t bits[lanes];
    for (std::uint64_t at = 0; at < std::uint64_t{1} << 20; at += static_cast<std::uint64_t>(lanes)) {
        for (index_t i = 0; i < lanes; ++i) {
            std::uint64_t const k = at + static_cast<std::uint64_t>(i);
            bits[i] = static_cast<std::uint32_t>(k / 16 << 16) + 0x8000u + static_cast<std::uint32_t>(k % 3) - 1u;
        }
        check(bits);
        for (index_t i = 0; i < lanes; ++i) bits[i] = ts::philox{3}.bits(at + static_cast<std::uint64_t>(i));
        check(bits);
    }
    CHECK(wrong == 0);
}

} // namespace

TEST_CASE("partial loads and stores touch only what they name") {
    for_each_arch([](auto arch) {
        partial<float>(arch);
        partial<ts::fp16>(arch);
        partial<ts::bf16>(arch);
    });
}

TEST_CASE("all 16-bit codes load exactly and store back") {
    for_each_arch([](auto arch) {
        all_codes<ts::fp16>(arch);
        all_codes<ts::bf16>(arch);
    });
}

TEST_CASE("vector stores round as the scalar conversion does") {
    for_each_arch([](auto arch) {
        rounding<ts::fp16>(arch);
        rounding<ts::bf16>(arch);
    });
}
