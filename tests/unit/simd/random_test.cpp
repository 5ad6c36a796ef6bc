// SPDX-License-Identifier: MIT
// Random numbers by registers are those of philox, and rounding with them is the definition's, to the last bit.

#include "simd_support.hpp"

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/simd/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

using namespace simd_test;

namespace {

template <class F, class Arch>
void check_rounding(Arch) {
    CAPTURE(std::string{Arch::name});
    CAPTURE(std::string{F::name});
    constexpr index_t lanes = ts::simd::lanes<Arch>;
    ts::philox const random{9};
    alignas(64) float x[lanes];
    alignas(64) std::int32_t numbers[lanes];
    alignas(64) std::int32_t codes[lanes];
    std::uint32_t const ends[] = {0u, 1u, 0x7fffffffu, 0x80000000u, 0xffffffffu};
    index_t wrong = 0;
    for (std::uint64_t i = 0; i < std::uint64_t{1} << 17; i += static_cast<std::uint64_t>(lanes)) {
        for (index_t l = 0; l < lanes; ++l) {
            std::uint64_t const at = i + static_cast<std::uint64_t>(l);
            // All magnitudes that the format has, and the whole of float32: subnormals, infinities.
            std::uint32_t const bits = random.bits(2 * at);
            auto const any = ts::detail::bit_cast<float>(bits);
            float v = i % 3 == 0 && any == any ? any : std::ldexp(random.uniform(2 * at) - 0.5f, static_cast<int>(bits % 24) - 12);
            if constexpr (F::is_integer)
                v = std::fmin(std::fmax(v, static_cast<float>(F::min_value)), static_cast<float>(F::max_value));
            x[l] = v;
            numbers[l] = static_cast<std::int32_t>(i % 5 == 0 ? ends[at % 5] : random.bits(2 * at + 1));
        }
        ts::simd::encode_at_random<F>(ts::simd::floats<Arch>::load_aligned(x), ts::simd::ints<Arch>::load_aligned(numbers))
            .store_aligned(codes);
        for (index_t l = 0; l < lanes; ++l)
            wrong += static_cast<std::uint32_t>(codes[l]) != F::encode(x[l], ts::rounding::stochastic, ts::overflow::saturate,
                                                                      static_cast<std::uint32_t>(numbers[l]));
    }
    CHECK(wrong == 0);
}

} // namespace

TEST_CASE("random numbers by registers are philox's") {
    for_each_arch([]<class Arch>(Arch) {
        CAPTURE(std::string{Arch::name});
        std::uint64_t const seed = 0x123456789abcdef0u;
        ts::philox const random{seed};
        std::vector<std::uint32_t> out(300 + static_cast<std::size_t>(2 * ts::simd::random_block<Arch>));
        for (std::uint64_t const first : {0ull, 1ull, 7ull, (0xfffffff0ull << 2) + 3, 0xfffffffffffull}) // counters of two words, too
            for (index_t const n : {0, 1, 5, 64, 255, 300}) {
                std::uint32_t const* const made = ts::simd::random_bits<Arch>(seed, first, n, out.data());
                index_t wrong = 0;
                for (index_t i = 0; i < n; ++i) wrong += made[i] != random.bits(first + static_cast<std::uint64_t>(i));
                CHECK(wrong == 0);
            }
    });
}

TEST_CASE("stochastic rounding by registers is the definition's") {
    for_each_arch([](auto arch) {
        check_rounding<ts::int4>(arch);
        check_rounding<ts::uint8>(arch);
        check_rounding<ts::e2m1>(arch);
        check_rounding<ts::e4m3fn>(arch);
        check_rounding<ts::e5m2fnuz>(arch);
        check_rounding<ts::minifloat<3, 0, ts::specials::finite>>(arch);
    });
}
