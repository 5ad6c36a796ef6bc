// SPDX-License-Identifier: MIT
// fp16 and bf16 against arithmetic in double, their quick constructors against the general encoder, limits.

#include "format_laws.hpp"

#include <tessera/numerics/half.hpp>

#include <bit>
#include <type_traits>

namespace ts = tessera;

TEST_CASE("16-bit formats equal arithmetic in double") {
    tessera_test::format_laws{tessera_test::erase_format<ts::fp16>()}.run();
    tessera_test::format_laws{tessera_test::erase_format<ts::bf16>()}.run();
}

TEST_CASE("the constructors equal the encoders") {
    long wrong = 0;
    for (std::uint32_t i = 0; i < 1u << 22; ++i) {
        float const x = std::bit_cast<float>(i * 1021u + (i >> 7));
        wrong += ts::fp16{x}.to_bits() != ts::fp16::encode(x) || ts::bf16{x}.to_bits() != ts::bf16::encode(x) ? 1 : 0;
    }
    CHECK(wrong == 0);
}

TEST_CASE("NaN") {
    for (std::uint32_t code = 0; code < 65536; ++code) {
        float const h = ts::fp16::decode(code);
        float const b = ts::bf16::decode(code);
        bool const right = std::isnan(h) == ((code & 0x7fffu) > 0x7c00u) &&
                           std::isnan(b) == ((code & 0x7fffu) > 0x7f80u) &&
                           ts::fp16{h}.to_bits() == (std::isnan(h) ? code | 0x200u : code) &&
                           ts::bf16{b}.to_bits() == (std::isnan(b) ? (code & 0x8000u) | 0x7fc0u : code) &&
                           ts::fp16{static_cast<double>(h)}.to_bits() == ts::fp16{h}.to_bits();
        CHECK_MESSAGE(right, code);
    }
}

TEST_CASE("double is rounded once") {
    // Just above the middle of 1 and the next value: as a float it would be the tie, which goes down.
    CHECK(ts::fp16{1.0 + 0x1p-11 + 0x1p-40}.to_bits() == 0x3c01);
    CHECK(ts::bf16{1.0 + 0x1p-8 + 0x1p-40}.to_bits() == 0x3f81);
    CHECK(ts::fp16{1.0 + 0x1p-11}.to_bits() == 0x3c00);
}

TEST_CASE("values are two bytes, and conversions are constant expressions") {
    static_assert(sizeof(ts::fp16) == 2 && std::is_trivial_v<ts::fp16> && std::is_trivial_v<ts::bf16>);
    static_assert(ts::fp16{65504.0f}.to_bits() == 0x7bff && ts::fp16{65520.0f}.to_bits() == 0x7c00);
    static_assert(ts::fp16{0x1p-24f}.to_bits() == 1 && ts::fp16{0x1p-25f}.to_bits() == 0);
    static_assert(static_cast<float>(ts::bf16::from_bits(0x0001)) == 0x1p-133f);
    static_assert(ts::fp32::encode(1.0f) == 0x3f800000u && ts::fp32::decode(0xbf800000u) == -1.0f);
    static_assert(-ts::fp16{2.0f} == ts::fp16{-2.0f} && ts::bf16{1.0f} < ts::bf16{2.0f});
    static_assert(ts::fp16::encode(1e6f, ts::rounding::nearest_even, ts::overflow::saturate) == 0x7bff);
    CHECK_FALSE(ts::fp16::from_bits(0x7e00) == ts::fp16::from_bits(0x7e00));
    CHECK(ts::fp16{-0.0f} == ts::fp16{0.0f});
}
