// SPDX-License-Identifier: MIT
// std::numeric_limits, array conversion, error bounds.

#include <tessera/numerics/codebook.hpp>
#include <tessera/numerics/convert.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/limits.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

template <class F>
void check_half_step() {
    CAPTURE(std::string{F::name});
    float const limit = F::is_integer ? F::max_magnitude - 1 : F::max_magnitude;
    long wrong = 0;
    for (int i = -20000; i <= 20000; ++i) {
        float const x = limit * (static_cast<float>(i) / 20000.0f);
        double const error = std::abs(static_cast<double>(F::decode(F::encode(x))) - static_cast<double>(x));
        wrong += error <= ts::half_step<F>(x) ? 0 : 1;
    }
    CHECK(wrong == 0);
}

} // namespace

TEST_CASE("numeric_limits") {
    using half = std::numeric_limits<ts::fp16>;
    static_assert(half::is_iec559 && half::digits == 11 && half::digits10 == 3 && half::max_digits10 == 5);
    static_assert(half::min_exponent == -13 && half::max_exponent == 16 && half::min_exponent10 == -4 &&
                  half::max_exponent10 == 4);
    static_assert(half::max() == ts::fp16{65504.0f} && half::lowest() == ts::fp16{-65504.0f});
    static_assert(half::min() == ts::fp16{0x1p-14f} && half::denorm_min() == ts::fp16{0x1p-24f});
    static_assert(half::epsilon() == ts::fp16{0x1p-10f} && half::infinity().to_bits() == 0x7c00);
    using brain = std::numeric_limits<ts::bf16>;
    static_assert(brain::digits == 8 && brain::min_exponent10 == -37 && brain::max_exponent10 == 38);
    static_assert(static_cast<float>(std::numeric_limits<ts::e4m3fn>::max()) == 448.0f);
    static_assert(!std::numeric_limits<ts::e4m3fn>::has_infinity && std::numeric_limits<ts::e4m3fn>::has_quiet_NaN);
    static_assert(static_cast<float>(std::numeric_limits<ts::e4m3fn>::epsilon()) == 0.125f);
    static_assert(std::numeric_limits<ts::e4m3fnuz>::quiet_NaN().to_bits() == 0x80);
    static_assert(static_cast<float>(std::numeric_limits<ts::e2m1>::lowest()) == -6.0f);
    static_assert(!std::numeric_limits<ts::e2m1>::has_quiet_NaN);
    static_assert(static_cast<float>(std::numeric_limits<ts::e8m0>::min()) == 0x1p-127f);
    static_assert(std::numeric_limits<ts::e8m0>::max_exponent == 128 && !std::numeric_limits<ts::e8m0>::is_signed);
    static_assert(static_cast<int>(std::numeric_limits<ts::int4>::lowest()) == -8);
    static_assert(static_cast<int>(std::numeric_limits<ts::uint3>::max()) == 7);
    static_assert(std::numeric_limits<ts::int8>::digits == 7 && std::numeric_limits<ts::int8>::digits10 == 2);
    CHECK(std::isnan(static_cast<float>(brain::quiet_NaN())));
}

TEST_CASE("arrays convert element by element, through float32") {
    std::vector<float> const x{0.0f, -1.0f, 1.0625f, 500.0f, 1e-3f, 0.3f, -7.7f};
    auto const n = static_cast<ts::index_t>(x.size());
    std::vector<ts::e4m3fn> narrow(x.size());
    std::vector<ts::fp16> half(x.size());
    std::vector<std::int8_t> bytes(x.size());
    ts::convert_array(x.data(), narrow.data(), n);
    ts::convert_array(narrow.data(), half.data(), n);
    ts::convert_array(x.data(), bytes.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) {
        CHECK(narrow[i].to_bits() == ts::e4m3fn{x[i]}.to_bits());
        CHECK(half[i].to_bits() == ts::fp16{static_cast<float>(narrow[i])}.to_bits());
    }
    CHECK(bytes[1] == -1);
    CHECK(bytes[3] == 127);
    CHECK(bytes[6] == -8);
    ts::convert_array(x.data(), narrow.data(), n, ts::rounding::half_away, ts::overflow::saturate);
    CHECK(static_cast<float>(narrow[2]) == 1.125f);
    CHECK(static_cast<float>(narrow[3]) == 448.0f);
    std::vector<std::uint32_t> const random(x.size(), 0xffffffffu);
    ts::convert_array(x.data(), bytes.data(), n, ts::rounding::stochastic, ts::overflow::saturate, random.data());
    CHECK(bytes[1] == -1);
    CHECK(bytes[5] == 1);
}

TEST_CASE("error bounds") {
    static_assert(ts::unit_roundoff<float> == 0x1p-24 && ts::unit_roundoff<double> == 0x1p-53);
    static_assert(ts::unit_roundoff<ts::fp16> == 0x1p-11 && ts::unit_roundoff<ts::bf16> == 0x1p-8);
    static_assert(ts::unit_roundoff<ts::e4m3fn> == 0x1p-4 && ts::unit_roundoff<ts::fp32> == 0x1p-24);
    static_assert(ts::gamma(0, 0x1p-24) == 0.0 && ts::gamma(1, 0.5) == 1.0);
    CHECK(std::isinf(ts::gamma(2, 0.5)));
    check_half_step<ts::fp16>();
    check_half_step<ts::bf16>();
    check_half_step<ts::e4m3fn>();
    check_half_step<ts::e5m2>();
    check_half_step<ts::e5m2fnuz>();
    check_half_step<ts::e2m3>();
    check_half_step<ts::e2m1>();
    check_half_step<ts::int4>();
    check_half_step<ts::nf4>();
    CHECK(ts::half_step<ts::e2m1>(5.0f) == 1.0);
    CHECK(ts::half_step<ts::e2m1>(0.1f) == 0.25);
}
