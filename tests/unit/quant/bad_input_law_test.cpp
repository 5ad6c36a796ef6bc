// SPDX-License-Identifier: MIT
// One law of bad input for every scheme: what quant/quantize.hpp promises of NaN, infinities, groups of zeros and of one element,
// subnormal and largest weights, lengths that groups do not divide, groups wider than the row, and nothing at all; and that blocks do
// not concern each other, rows can be encoded alone and powers of two pass through. Schemes differ by a line of the list.

#include <tessera/numerics/codebook.hpp>
#include <tessera/numerics/fixed_point.hpp>
#include <tessera/numerics/power_exponent.hpp>
#include <tessera/numerics/ternary.hpp>
#include <tessera/quant/quantize.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

using view = ts::matrix_view<float const>;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// A scheme without its type.
struct scheme_case {
    std::string name;
    std::function<ts::matrix<float>(view const&)> decoded; ///< encoded and decoded
    index_t rows;                                          ///< of a block; 0: all
    index_t columns;
    bool has_zero;         ///< among its values
    bool has_nan;          ///< among its scales
    bool has_float_scales; ///< of the whole range that is tried here
    bool has_super_scales; ///< and so blocks of unequal size share what is exact
    double coarseness;     ///< of a scale, relative
};

template <class Scheme>
scheme_case of() {
    using levels = ts::detail::scale_levels<typename Scheme::scale_type>;
    using lower = typename levels::lower;
    using format = typename Scheme::format;
    scheme_case c;
    c.name = std::string{format::name} + ", " + std::to_string(Scheme::granularity_type::rows) + " x " +
             std::to_string(Scheme::granularity_type::columns) + ", " + Scheme::scale_type::name + (Scheme::is_affine ? ", affine" : "");
    c.decoded = [](view const& w) {
        auto const q = ts::quantize<Scheme>(ts::reference{}, w);
        auto const v = q.view();
        ts::matrix<float> out{w.extent(0), w.extent(1)};
        for (index_t n = 0; n < out.extent(0); ++n)
            for (index_t k = 0; k < out.extent(1); ++k) out(n, k) = v(n, k);
        return out;
    };
    c.rows = Scheme::granularity_type::rows;
    c.columns = Scheme::granularity_type::columns;
    c.has_zero = format::decode(format::encode(0.0f)) == 0.0f;
    c.has_nan = std::isnan(lower::decode(lower::encode(not_a_number)));
    c.has_float_scales = levels::are_two || c.has_nan;
    c.has_super_scales = levels::are_two;
    c.coarseness = std::is_same_v<lower, ts::e8m0> ? 0.25 : 0x1p-4;
    return c;
}

std::vector<float> numbers(index_t count, std::uint64_t seed) {
    std::vector<float> w(static_cast<std::size_t>(count));
    for (index_t i = 0; i < count; ++i) w[static_cast<std::size_t>(i)] = 4 * ts::philox{seed}.normal(static_cast<std::uint64_t>(i));
    return w;
}

bool same(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

struct block {
    index_t first_row, last_row, first_column, last_column;
    bool holds(index_t n, index_t k) const { return n >= first_row && n < last_row && k >= first_column && k < last_column; }
};
block block_of(scheme_case const& c, index_t rows, index_t columns, index_t n, index_t k) {
    index_t const r = c.rows == 0 ? rows : c.rows;
    index_t const s = c.columns == 0 ? columns : c.columns;
    return {n / r * r, std::min(n / r * r + r, rows), k / s * s, std::min(k / s * s + s, columns)};
}

void check_shapes(scheme_case const& c) {
    CHECK(c.decoded(view{nullptr, 0, 5}).extent(0) == 0);
    CHECK(c.decoded(view{nullptr, 3, 0}).extent(1) == 0);
    CHECK(c.decoded(view{nullptr, 0, 0}).size() == 0);
    index_t wrong = 0;
    for (index_t const n : {1, 3, 5})
        for (index_t const k : {1, 2, 31, 33, 65, 130}) {
            auto const w = numbers(n * k, static_cast<std::uint64_t>(k));
            auto const all = c.decoded(view{w.data(), n, k});
            for (index_t i = 0; i < n * k; ++i) wrong += !std::isfinite(all.data()[i]);
            if (c.rows != 1 || c.has_super_scales) continue;
            for (index_t r = 0; r < n; ++r) { // a row alone
                auto const one = c.decoded(view{w.data() + r * k, 1, k});
                for (index_t j = 0; j < k; ++j) wrong += !same(one(0, j), all(r, j));
            }
        }
    CHECK(wrong == 0);
}

void check_zeros_and_single(scheme_case const& c) {
    std::vector<float> w(3 * 70, 0.0f);
    auto zeros = c.decoded(view{w.data(), 3, 70});
    index_t wrong = 0;
    for (index_t i = 0; i < zeros.size(); ++i) wrong += !(std::fabs(zeros.data()[i]) <= (c.has_zero ? 0.0f : 0x1p-120f));
    CHECK(wrong == 0);
    // A block of zeros beside others.
    w = numbers(3 * 70, 2);
    block const b = block_of(c, 3, 70, 1, 40);
    for (index_t n = b.first_row; n < b.last_row; ++n)
        for (index_t k = b.first_column; k < b.last_column; ++k) w[static_cast<std::size_t>(n * 70 + k)] = 0;
    zeros = c.decoded(view{w.data(), 3, 70});
    for (index_t i = 0; i < zeros.size(); ++i) wrong += !std::isfinite(zeros.data()[i]);
    if (c.has_zero)
        for (index_t n = b.first_row; n < b.last_row; ++n)
            for (index_t k = b.first_column; k < b.last_column; ++k) wrong += zeros(n, k) != 0;
    CHECK(wrong == 0);
    // One weight is its own scale.
    if (!c.has_float_scales) return;
    for (float const one : {1.0f, -1.0f, 0.37f, -117.0f}) {
        float const back = c.decoded(view{&one, 1, 1})(0, 0);
        CHECK(std::fabs(static_cast<double>(back) - static_cast<double>(one)) <= c.coarseness * std::fabs(static_cast<double>(one)));
    }
}

void check_not_finite(scheme_case const& c) {
    constexpr index_t rows = 5, columns = 70;
    auto const w = numbers(rows * columns, 3);
    for (float const bad : {not_a_number, infinity, -infinity})
        for (auto const& [n, k] : {std::pair<index_t, index_t>{0, 0}, {2, 37}, {4, 69}}) {
            auto with = w;
            with[static_cast<std::size_t>(n * columns + k)] = bad;
            if (!c.has_nan) {
                CHECK_THROWS_AS(c.decoded(view{with.data(), rows, columns}), ts::unsupported_error);
                continue;
            }
            block const b = block_of(c, rows, columns, n, k);
            auto without = w; // its block, as if it were zeros
            for (index_t r = b.first_row; r < b.last_row; ++r)
                for (index_t j = b.first_column; j < b.last_column; ++j) without[static_cast<std::size_t>(r * columns + j)] = 0;
            auto const found = c.decoded(view{with.data(), rows, columns});
            auto const expected = c.decoded(view{without.data(), rows, columns});
            index_t wrong = 0;
            for (index_t r = 0; r < rows; ++r)
                for (index_t j = 0; j < columns; ++j)
                    wrong += b.holds(r, j) ? !std::isnan(found(r, j)) : !same(found(r, j), expected(r, j));
            CHECK(wrong == 0);
        }
}

void check_magnitudes(scheme_case const& c) {
    for (int exponent = -149; exponent <= 127; ++exponent) {
        float const unit = std::ldexp(1.0f, exponent);
        float const top = exponent == 127 ? std::numeric_limits<float>::max() : 1.75f * unit;
        float const w[6] = {top, -top, 0.25f * unit, 0, -0.75f * unit, unit};
        auto const back = c.decoded(view{w, 1, 6});
        index_t wrong = 0;
        for (index_t k = 0; k < 6; ++k) {
            float const v = back(0, k);
            wrong += !std::isfinite(v);
            wrong += w[k] > 0 ? v < 0 && c.has_zero : w[k] < 0 && v > 0 && c.has_zero; // a sign never turns
            // Types of scales end; what saturates is smaller, what is rounded up at most twice as large, or the smallest there is.
            wrong += static_cast<double>(std::fabs(v)) > 2.1 * static_cast<double>(top) + 0x1p-3 * (c.has_float_scales ? 0 : 1) + 0x1p-120 && exponent > -100;
        }
        CAPTURE(exponent);
        CHECK(wrong == 0);
    }
}

/// Powers of two pass through scales that are floats.
void check_powers(scheme_case const& c) {
    if (!c.has_float_scales) return;
    auto const w = numbers(4 * 70, 4);
    auto larger = w;
    for (float& x : larger) x *= 4;
    auto const one = c.decoded(view{w.data(), 4, 70});
    auto const four = c.decoded(view{larger.data(), 4, 70});
    index_t wrong = 0;
    for (index_t i = 0; i < one.size(); ++i) wrong += !same(four.data()[i], 4 * one.data()[i]);
    CHECK(wrong == 0);
}

void check(std::vector<scheme_case> const& cases) {
    for (scheme_case const& c : cases) {
        CAPTURE(c.name);
        check_shapes(c);
        check_zeros_and_single(c);
        check_not_finite(c);
        check_magnitudes(c);
        check_powers(c);
    }
}

template <class Format, class Granularity, class Scale = ts::fp16>
using affine_of = ts::scheme<Format, Granularity, Scale, ts::affine>;

} // namespace

TEST_CASE("integers") {
    check({of<ts::scheme<ts::int1, ts::group<16>, ts::fp16>>(), of<ts::scheme<ts::int2, ts::group<1>>>(),
           of<ts::scheme<ts::int3, ts::group<40>, ts::bf16>>(), of<ts::int4_g128>(), of<ts::scheme<ts::int5, ts::per_tensor>>(),
           of<ts::scheme<ts::int6, ts::group<32>, ts::e8m0>>(), of<ts::scheme<ts::int7, ts::block<2, 24>, ts::fp16>>(),
           of<ts::int8_per_channel>(), of<ts::scheme<ts::int4, ts::group<32>, ts::e4m3fn>>(),
           of<ts::scheme<ts::int8, ts::group<7>, ts::uint8>>(), of<ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::int6, ts::group<256>, ts::fp16>>>()});
}
TEST_CASE("integers with zero points") {
    check({of<affine_of<ts::uint1, ts::group<16>>>(), of<affine_of<ts::uint2, ts::group<1>, ts::fp32>>(), of<affine_of<ts::uint3, ts::group<40>, ts::bf16>>(),
           of<ts::uint4_g32>(), of<affine_of<ts::uint5, ts::per_tensor, ts::fp32>>(), of<affine_of<ts::uint6, ts::block<2, 24>>>(),
           of<affine_of<ts::uint8, ts::per_channel, ts::fp32>>(),
           of<affine_of<ts::uint4, ts::group<16>, ts::two_level<ts::uint8, ts::per_channel, ts::fp16>>>()});
}
TEST_CASE("small floats, fixed point, tables") {
    check({of<ts::mx_e2m1>(), of<ts::mx_e4m3>(), of<ts::mx_e5m2>(), of<ts::mx_int8>(), of<ts::nv_e2m1>(),
           of<ts::scheme<ts::e4m3fn, ts::per_channel>>(), of<ts::scheme<ts::minifloat<3, 0, ts::specials::finite>, ts::group<64>, ts::fp16>>(),
           of<ts::scheme<ts::e2m1, ts::group<32>, ts::two_level<ts::e8m0, ts::per_channel>>>(), of<ts::nf4_g64>(),
           of<ts::scheme<ts::k_hot_point<8, 6, 2>, ts::group<32>, ts::fp16>>(), of<ts::scheme<ts::ternary, ts::group<24>, ts::fp16>>(),
           of<ts::scheme<ts::power_exponent<4, 1, 2>, ts::group<32>, ts::fp16>>(), of<ts::scheme<ts::bipolar<1>, ts::group<32>>>(),
           of<ts::scheme<ts::bipolar<4>, ts::group<40>, ts::e8m0>>()});
}
