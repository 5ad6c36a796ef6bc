// SPDX-License-Identifier: MIT
#include "simd_support.hpp"

#include <tessera/numerics/error_bounds.hpp>
#include <tessera/simd/reduce.hpp>

#include <cmath>
#include <limits>
#include <vector>

using namespace simd_test;

namespace {

std::vector<float> random(index_t n) {
    std::vector<float> x;
    for (index_t i = 0; i < n; ++i) x.push_back(ts::philox{1}.normal(static_cast<std::uint64_t>(i)));
    return x;
}

} // namespace

TEST_CASE("sums and maxima over any length") {
    for_each_arch([](auto arch) {
        using A = decltype(arch);
        CAPTURE(A::name);
        constexpr index_t lanes = ts::simd::lanes<A>;
        for (index_t n = 0; n <= 9 * lanes + 1; ++n) {
            CAPTURE(n);
            auto const x = random(n);
            auto const load = [&](index_t i, index_t count) { return ts::simd::load_partial<A>(x.data() + i, count); };
            double sum = 0;
            double size = 0;
            float top = -std::numeric_limits<float>::infinity();
            for (float const v : x) {
                sum += double{v};
                size += std::abs(double{v});
                top = std::max(top, v);
            }
            double const most = ts::gamma(n / (4 * lanes) + 4 + 4, ts::unit_roundoff<float>) * size;
            CHECK(std::abs(double{ts::simd::sum<A>(n, load)} - sum) <= most);
            CHECK(ts::simd::largest<A>(n, -std::numeric_limits<float>::infinity(), load) == top);
            // Lanes beyond n do not take part, whatever f makes of them.
            auto const one = [&](index_t, index_t) { return ts::simd::floats<A>(1.0f); };
            CHECK(ts::simd::sum<A>(n, one) == static_cast<float>(n));
            index_t seen = 0;
            ts::simd::for_each<A>(n, [&](index_t i, index_t count) {
                CHECK(i == seen);
                seen += count;
            });
            CHECK(seen == n);
        }
    });
}

TEST_CASE("fused operations and reductions of a register") {
    for_each_arch([](auto arch) {
        using A = decltype(arch);
        using reals = ts::simd::floats<A>;
        auto const first = [](reals const& v) {
            alignas(64) float lane[ts::simd::lanes<A>];
            v.store_aligned(lane);
            return lane[0];
        };
        reals const x(1.0f + 0x1p-12f);
        if constexpr (!std::is_same_v<A, ts::sse2>) {
            // The square has 25 bits: only one rounding gives its last one.
            CHECK(first(ts::simd::fma(x, x, reals(-1.0f))) == 0x1p-11f + 0x1p-24f);
            CHECK(first(ts::simd::fms(x, x, reals(1.0f))) == 0x1p-11f + 0x1p-24f);
            CHECK(first(ts::simd::fnma(x, x, reals(1.0f))) == -0x1p-11f - 0x1p-24f);
        }
        CHECK(first(ts::simd::fnma(reals(3.0f), reals(5.0f), reals(1.0f))) == -14.0f);
        CHECK(first(ts::simd::max(reals(3.0f), reals(5.0f))) == 5.0f);
        CHECK(first(ts::simd::min(reals(3.0f), reals(5.0f))) == 3.0f);
    });
}
