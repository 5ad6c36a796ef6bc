// SPDX-License-Identifier: MIT
// L-Mul: golden numbers, its error law, all pairs of 8-bit codes, and products of it on the CPU.

#include <doctest/doctest.h>

#include "cases/guarded.hpp"
#include "support/instruction_sets.hpp"

#include <tessera/numerics/error_bounds.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/lmul.hpp>
#include <tessera/quant/quantize.hpp>

#include <array>
#include <cmath>
#include <limits>

using namespace tessera_test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

struct error_law {
    double least = 0;
    double most = 0;
    double mean = 0;
    double rms = 0;
};

/// Relative errors over the middles of 1024 by 1024 cells of mantissas, with another constant.
error_law law_of(std::uint32_t constant) {
    auto fields = ts::detail::fields_of<ts::fp32>;
    fields.constant = constant;
    error_law law;
    constexpr int cells = 1024;
    for (int i = 0; i < cells; ++i)
        for (int j = 0; j < cells; ++j) {
            float const x = 1.0f + (static_cast<float>(i) + 0.5f) / cells;
            float const y = 1.0f + (static_cast<float>(j) + 0.5f) / cells;
            double const r = double{ts::fp32::decode(ts::detail::l_mul_codes(ts::fp32::encode(x), ts::fp32::encode(y), fields, true))};
            double const error = r / (double{x} * double{y}) - 1;
            law.least = std::fmin(law.least, error);
            law.most = std::fmax(law.most, error);
            law.mean += error / (cells * cells);
            law.rms += error * error / (cells * cells);
        }
    law.rms = std::sqrt(law.rms);
    return law;
}

/// The value from fields of the operands: exponents add, mantissas and 2^-l add, whole parts of their sum go to the exponent.
template <class Format>
double by_fields(float x, float y) {
    double const least = double{ts::detail::least_normal<Format>};
    if (std::abs(double{x}) < least || std::abs(double{y}) < least) return 0;
    int ex = 0;
    int ey = 0;
    double const fx = 2 * std::frexp(std::abs(double{x}), &ex) - 1;
    double const fy = 2 * std::frexp(std::abs(double{y}), &ey) - 1;
    double const s = fx + fy + std::ldexp(1.0, -ts::detail::l_mul_shift(ts::detail::fields_of<Format>.mantissa_bits));
    double const r = std::ldexp(1 + (s - std::floor(s)), ex + ey - 2 + static_cast<int>(std::floor(s)));
    double const most = double{Format::max_magnitude};
    double const kept = r < least ? 0 : std::fmin(r, most);
    return std::signbit(x) != std::signbit(y) ? -kept : kept;
}

template <class Format>
void every_pair() {
    CAPTURE(std::string{Format::name});
    bool right = true;
    for (std::uint32_t a = 0; a < 256; ++a)
        for (std::uint32_t b = 0; b < 256; ++b) {
            float const x = Format::decode(a);
            float const y = Format::decode(b);
            float const r = Format::decode(ts::l_multiply<Format>(a, b));
            double const least = double{ts::detail::least_normal<Format>};
            bool const zero = std::abs(double{x}) < least || std::abs(double{y}) < least;
            if (std::isnan(x) || std::isnan(y) || ((std::isinf(x) || std::isinf(y)) && zero))
                right = right && std::isnan(r);
            else if (std::isinf(x) || std::isinf(y))
                right = right && std::isinf(r) && std::signbit(r) == (std::signbit(x) != std::signbit(y));
            else
                right = right && double{r} == by_fields<Format>(x, y);
        }
    CHECK(right);
}

/// y of the CPU is the definition's, canonical and placed.
template <class Arch, class Format, class Op>
void check_product(Op const& op, index_t m) {
    CAPTURE(std::string{Arch::name});
    CAPTURE(std::string{Format::name});
    CAPTURE(op.rows());
    CAPTURE(op.cols());
    guarded<float> x{m, op.cols(), 1, 2};
    x.fill(5, 2);
    if (m > 0 && op.cols() > 3) x.view()(0, 3) = 0;
    guarded<float> y{m, op.rows(), 1}, expected{m, op.rows()}, again{m, op.rows()};
    ts::cpu<Arch, ts::serial> const exec;
    ts::apply(exec, op, x.view(), y.view());
    ts::apply(ts::reference{}, op, x.view(), expected.view());
    CHECK(y.is_intact());
    for (index_t i = 0; i < m; ++i)
        for (index_t n = 0; n < op.rows(); ++n) {
            double sum = 0;
            for (index_t k = 0; k < op.cols(); ++k)
                sum += std::abs(double{ts::l_multiply<Format>(x.view()(i, k), static_cast<float>(op.storage()(n, k)))});
            // Products are exact; the float32 sum of them and the reference's rounding are not.
            CHECK(std::abs(double{y.view()(i, n)} - double{expected.view()(i, n)}) <= ts::gamma(op.cols() + 2, 0x1p-24) * sum);
        }
    ts::apply(exec, ts::place(exec, op), x.view(), again.view());
    CHECK(same_bits(y, again));
}

} // namespace

TEST_CASE("constants and golden numbers") {
    CHECK(ts::l_mul_constant<ts::fp32> == 0x3F780000u);
    CHECK(ts::l_mul_constant<ts::bf16> == 0x3F78u);
    CHECK(ts::l_mul_constant<ts::fp16> == 0x3BC0u);
    CHECK(ts::l_mul_constant<ts::e4m3fn> == 0x37u);
    CHECK(ts::l_mul_constant<ts::e5m2> == 0x3Bu);
    CHECK(ts::l_multiply(1.0f, 1.0f) == 1.0625f);
    CHECK(ts::l_multiply(1.5f, 1.5f) == 2.125f);
    CHECK(ts::l_multiply(1.25f, 1.25f) == 1.5625f);
    CHECK(ts::l_multiply(1.75f, 1.75f) == 3.125f);
    CHECK(ts::l_multiply(3.0f, 5.0f) == 14.5f);
    CHECK(ts::l_multiply(-2.0f, 7.0f) == -14.5f);
    CHECK(double{ts::l_multiply(0.1f, 0.2f)} == 0.01972656324505806);
    CHECK(ts::l_multiply(1.46875f, 1.46875f) == 2.0f);
    CHECK(double{ts::l_multiply(3.14159265358979f, 2.71828182845905f)} == 7.9697489738464355);
}

TEST_CASE("zeros, ends of the range and what is not finite") {
    CHECK(ts::l_multiply(0.0f, 5.0f) == 0.0f);
    CHECK(std::signbit(ts::l_multiply(-0.0f, 5.0f)));
    CHECK(ts::l_multiply(0x1p-140f, 1e30f) == 0.0f); // subnormal
    CHECK(ts::l_multiply(0x1p-80f, 0x1p-80f) == 0.0f);
    CHECK(ts::l_multiply(0x1p100f, -0x1p100f) == -std::numeric_limits<float>::max());
    CHECK(ts::l_multiply(0x1p100f, -0x1p100f, ts::overflow::infinity) == -infinity);
    CHECK(ts::l_multiply(std::numeric_limits<float>::max(), std::numeric_limits<float>::max()) == std::numeric_limits<float>::max());
    CHECK(ts::l_multiply(infinity, -2.0f) == -infinity);
    CHECK(std::isnan(ts::l_multiply(infinity, 0.0f)));
    CHECK(std::isnan(ts::l_multiply(not_a_number, 1.0f)));
}

TEST_CASE("the law of its errors over uniform mantissas") {
    auto const with_l = [](int l) { return law_of((127u << 23) - (1u << (23 - l))); };
    error_law const four = with_l(4);
    CHECK(std::abs(four.least + 0.0729) < 1e-4);
    CHECK(std::abs(four.most - 0.0625) < 1e-4);
    CHECK(std::abs(four.mean - 0.0041) < 5e-5);
    CHECK(std::abs(four.rms - 0.0309) < 5e-5);
    error_law const three = with_l(3);
    CHECK(std::abs(three.least + 0.032) < 6e-4);
    CHECK(std::abs(three.most - 0.125) < 2e-4);
    CHECK(std::abs(three.mean - 0.049) < 5e-4);
    CHECK(std::abs(three.rms - 0.058) < 5e-4);
    error_law const five = with_l(5);
    CHECK(std::abs(five.least + 0.092) < 5e-4);
    CHECK(std::abs(five.most - 0.031) < 5e-4);
    CHECK(std::abs(five.mean + 0.017) < 5e-4);
    error_law const none = law_of(127u << 23); // Mitchell's product
    CHECK(std::abs(none.least + 0.1111) < 1e-4);
    CHECK(none.most <= 0);
    CHECK(std::abs(none.mean + 0.0385) < 5e-5);
}

TEST_CASE("every pair of codes of 8 bits") {
    every_pair<ts::e4m3fn>();
    every_pair<ts::e5m2>();
    every_pair<ts::minifloat<4, 3, ts::specials::unsigned_zero>>();
    every_pair<ts::minifloat<3, 4>>();
}

TEST_CASE("products of dense and quantised weights") {
    for (auto const [m, n, k] : {std::array<index_t, 3>{1, 1, 1}, {2, 17, 33}, {3, 5, 130}, {0, 2, 3}, {2, 3, 0}, {33, 20, 64}}) {
        guarded<float> w{n, k};
        w.fill(3);
        auto const dense = std::as_const(w).view();
        archs_by_width::visit([&]<class Arch>(Arch) { check_product<Arch, ts::bf16>(ts::linear{dense, ts::l_mul<ts::bf16>{}}, m); });
        check_product<ts::native_arch, ts::fp32>(ts::linear{dense, ts::l_mul<ts::fp32>{}}, m);
        check_product<ts::native_arch, ts::e4m3fn>(ts::linear{dense, ts::l_mul<ts::e4m3fn>{}}, m);
        auto const q = ts::quantize<ts::int4_g32>(dense);
        check_product<ts::native_arch, ts::fp16>(ts::linear{q, ts::l_mul<ts::fp16>{}}, m);
    }
}

TEST_CASE("rows that are not finite") {
    guarded<float> w{3, 40};
    guarded<float> x{3, 40};
    w.fill(1);
    x.fill(2);
    x.view()(1, 7) = not_a_number;
    x.view()(2, 7) = infinity;
    w.view()(2, 5) = infinity;
    guarded<float> y{3, 3}, expected{3, 3};
    ts::linear const op{std::as_const(w).view(), ts::l_mul<ts::bf16>{}};
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, op, x.view(), y.view());
    ts::apply(ts::reference{}, op, x.view(), expected.view());
    for (index_t i = 0; i < 3; ++i)
        for (index_t n = 0; n < 3; ++n) {
            CHECK(std::isnan(y.view()(i, n)) == std::isnan(expected.view()(i, n)));
            if (std::isinf(expected.view()(i, n))) CHECK(y.view()(i, n) == expected.view()(i, n));
        }
    CHECK(std::isfinite(y.view()(0, 0)));
}
