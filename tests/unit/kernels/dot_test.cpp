// SPDX-License-Identifier: MIT
// dot4: every instruction set's integer dot product is the definition, for random and for extreme bytes.

#include <doctest/doctest.h>

#include "../operators/operator_laws.hpp"

#include <tessera/simd/dot.hpp>

#include <cstring>

using namespace tessera_test;

namespace {

template <class Arch, int Bits>
void check_bytes(std::uint8_t const (&u)[64], std::int8_t const (&s)[64], std::int32_t start) {
    alignas(64) std::int32_t actual[ts::simd::lanes<Arch>];
    using ints = ts::simd::ints<Arch>;
    auto const load = [](auto const& bytes) { return ts::simd::load_bytes<Arch>(reinterpret_cast<std::byte const*>(bytes)); };
    ts::simd::dot4<Bits, Arch>(ints(start), load(u), load(s)).store_aligned(actual);
    for (index_t i = 0; i < ts::simd::lanes<Arch>; ++i) {
        std::int32_t expected = start;
        for (index_t j = 0; j < 4; ++j) expected += u[4 * i + j] * s[4 * i + j];
        CHECK(actual[i] == expected);
    }
    for (std::int8_t const v : s) // the other products are of s without -128
        if (v == -128) return;
    constexpr int bias = ts::simd::dot4_bias<Bits, Arch>;
    ts::simd::dot4_less<Bits, Arch>(ints(start), load(u), load(s)).store_aligned(actual);
    for (index_t i = 0; i < ts::simd::lanes<Arch>; ++i) {
        std::int32_t expected = start;
        for (index_t j = 0; j < 4; ++j) expected += (u[4 * i + j] - bias) * s[4 * i + j];
        CHECK(actual[i] == expected);
    }
    if constexpr (constexpr int depth = ts::simd::narrow_depth<Bits, Arch>; depth > 0) {
        ints sum = ts::simd::dot4_narrow<Arch>(load(u), load(s));
        for (int i = 1; i < depth; ++i) sum = ts::simd::dot4_narrow<Arch>(sum, load(u), load(s));
        ts::simd::widen_narrow<Arch>(ints(start), sum).store_aligned(actual);
        alignas(64) std::int32_t scaled[ts::simd::lanes<Arch>];
        ts::simd::multiply_narrow<Arch>(ints(start), sum, ints(-32 * 65536 + 65504)).store_aligned(scaled);
        for (index_t i = 0; i < ts::simd::lanes<Arch>; ++i) {
            std::int32_t expected = 0;
            for (index_t j = 0; j < 4; ++j) expected += depth * u[4 * i + j] * s[4 * i + j];
            CHECK(actual[i] == start + expected);
            CHECK(scaled[i] == start - 32 * expected);
        }
    }
}

template <class Arch, int Bits>
void check_width() {
    constexpr int most = (1 << Bits) - 1;
    CAPTURE(std::string{Arch::name});
    CAPTURE(Bits);
    std::uint8_t u[64];
    std::int8_t s[64];
    for (int const code : {0, 1, most})
        for (int const value : {-128, -127, -1, 0, 127}) {
            std::memset(u, code, sizeof u);
            std::memset(s, value, sizeof s);
            check_bytes<Arch, Bits>(u, s, 0);
            for (int i = 1; i < 64; i += 2) u[i] = static_cast<std::uint8_t>(most);
            for (int i = 1; i < 64; i += 2) s[i] = 127;
            check_bytes<Arch, Bits>(u, s, -1000000);
        }
    ts::philox const random{Bits};
    for (std::uint64_t turn = 0; turn < 50; ++turn) {
        for (std::uint64_t i = 0; i < 64; ++i) {
            u[i] = static_cast<std::uint8_t>(random.bits(turn * 128 + i) & static_cast<unsigned>(most));
            s[i] = static_cast<std::int8_t>(random.bits(turn * 128 + 64 + i));
        }
        check_bytes<Arch, Bits>(u, s, static_cast<std::int32_t>(turn) - 25);
    }
}

} // namespace

TEST_CASE("dot4 is its definition") {
    for_each_arch([]<class Arch>(Arch) {
        check_width<Arch, 1>();
        check_width<Arch, 4>();
        check_width<Arch, 7>();
        check_width<Arch, 8>();
    });
#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
    check_width<ts::avx512, 7>();
    check_width<ts::avx512, 8>();
#endif
#if defined(__AVXVNNI__) && defined(__AVX2__)
    check_width<ts::avx2_vnni, 8>();
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    check_width<ts::neon64_dotprod, 7>();
    check_width<ts::neon64_dotprod, 8>();
#endif
}
