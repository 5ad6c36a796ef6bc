// SPDX-License-Identifier: MIT
// quantize on the processor is the definition bit for bit: schemes of every kind of block, shapes with tails, strided and
// transposed views, one thread and several, every range; ranges of least error have no more of it.

#include "support/instruction_sets.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/core/thread_pool.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/quant/quantize.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace ts = tessera;
using ts::index_t;

namespace {

template <class Scheme>
bool same(ts::quantized_tensor<Scheme> const& a, ts::quantized_tensor<Scheme> const& b) {
    auto const left = a.view();
    auto const right = b.view();
    auto const scales = static_cast<std::size_t>(left.scale_rows() * left.scale_columns());
    auto const equal = [](auto const* x, auto const* y, std::size_t n) {
        return n == 0 || std::memcmp(x, y, n * sizeof(*x)) == 0;
    };
    bool const super = !Scheme::has_two_levels ||
                       equal(left.super_scales(), right.super_scales(),
                             static_cast<std::size_t>(left.super_scale_count(left.rows(), left.cols())));
    return super && equal(left.codes(), right.codes(), static_cast<std::size_t>(left.rows() * left.row_bytes())) &&
           equal(left.scales(), right.scales(), scales) &&
           (!Scheme::is_affine || equal(left.zero_points(), right.zero_points(), scales));
}

ts::matrix<float> weights(index_t n, index_t k) {
    ts::matrix<float> w{n, k};
    ts::philox const random{3};
    for (index_t i = 0; i < n * k; ++i) {
        float const x = random.normal(static_cast<std::uint64_t>(i));
        w.data()[i] = i % 97 == 5 ? 6 * x : x; // some far out
    }
    return w;
}

template <class Scheme, class Range>
void check_range(ts::matrix_view<float const> const& w, Range const& range, ts::thread_pool& pool) {
    for (auto const mode : {ts::rounding::nearest_even, ts::rounding::stochastic}) {
        ts::quantize_options const options{.mode = mode, .seed = 5};
        auto const expected = ts::quantize<Scheme>(ts::reference{}, w, range, options);
        CHECK(same(expected, ts::quantize<Scheme>(ts::cpu<ts::native_arch, ts::serial>{}, w, range, options)));
        ts::cpu const parallel{ts::threads{pool}};
        CHECK(same(expected, ts::quantize<Scheme>(parallel, w, range, options)));
    }
}

template <class Scheme>
void check_scheme(ts::thread_pool& pool) {
    for (index_t const n : {0, 1, 5, 37})
        for (index_t const k : {0, 1, 33, 300}) {
            CAPTURE(n);
            CAPTURE(k);
            auto const w = weights(n, k);
            check_range<Scheme>(w.view(), ts::min_max_range{}, pool);
        }
    auto const w = weights(40, 200);
    ts::matrix_view<float const> const all = w.view();
    check_range<Scheme>(all, ts::least_error_range{16}, pool);
    index_t const strides[] = {1, 200};
    ts::matrix_view<float const> const transposed{w.data(), {ts::dynamic_extents<2>{index_t{200}, index_t{40}}, strides}};
    check_range<Scheme>(transposed, ts::min_max_range{}, pool);
}

template <class Scheme>
double error_of(ts::matrix<float> const& w, ts::quantized_tensor<Scheme> const& q) {
    double sum = 0;
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t k = 0; k < w.extent(1); ++k) {
            double const e = static_cast<double>(w(n, k)) - static_cast<double>(q.view()(n, k));
            sum += e * e;
        }
    return sum;
}

} // namespace

TEST_CASE("schemes of every kind of block") {
    ts::thread_pool pool{3};
    check_scheme<ts::int4_g32>(pool);
    check_scheme<ts::scheme<ts::uint3, ts::block<2, 24>, ts::bf16, ts::affine>>(pool);
    check_scheme<ts::scheme<ts::int5, ts::per_tensor, ts::fp32>>(pool);
    check_scheme<ts::nv_e2m1>(pool);
}

namespace {

template <class Scheme>
void check_short_blocks(ts::matrix<float> const& w) {
    for (auto const& options : {ts::quantize_options{}, ts::quantize_options{.scales = ts::scale_rule::up},
                                ts::quantize_options{.mode = ts::rounding::stochastic, .seed = 3}}) {
        auto const expected = ts::quantize<Scheme>(ts::reference{}, w, ts::min_max_range{}, options);
        tessera_test::archs_by_width::visit([&]<class Arch>(Arch) {
            ts::cpu<Arch, ts::serial> const exec;
            CHECK(same(expected, ts::quantize<Scheme>(exec, w, ts::min_max_range{}, options)));
        });
    }
}

} // namespace

TEST_CASE("short blocks, several at a time: of zeros, of extreme, of unequal size, and not finite; on every width") {
    auto w = weights(7, 16 * 37 + 5);
    for (index_t k = 0; k < w.extent(1); ++k) {
        w(1, k) = k < 64 ? 0.0f : k % 3 == 0 ? -0.0f : w(1, k) * 0x1p-140f;
        w(2, k) *= k < 40 ? 0x1p+120f : 0x1p-120f;
        w(3, k) *= std::ldexp(1.0f, static_cast<int>(k / 16 % 40) - 20);
    }
    check_short_blocks<ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::uint8, ts::group<256>, ts::fp16>>>(w);
    w(4, 17) = std::numeric_limits<float>::quiet_NaN();
    w(4, 70) = std::numeric_limits<float>::infinity();
    w(4, 16 * 37 + 4) = -std::numeric_limits<float>::infinity();
    check_short_blocks<ts::nv_e2m1>(w);
    check_short_blocks<ts::mx_e2m1>(w);
    check_short_blocks<ts::scheme<ts::int4, ts::group<16>, ts::bf16>>(w);
    check_short_blocks<ts::scheme<ts::int4, ts::group<60>, ts::fp16>>(w); // blocks of no whole registers, one of zeros
}

TEST_CASE("every range") {
    ts::thread_pool pool{2};
    auto const w = weights(64, 500);
    using scheme = ts::scheme<ts::uint4, ts::group<96>, ts::fp16, ts::affine>;
    check_range<scheme>(w.view(), ts::percentile_range{0.97}, pool);
    check_range<scheme>(w.view(), ts::lloyd_max_range{}, pool);

    ts::cpu<> const exec;
    double const widest = error_of(w, ts::quantize<ts::int4_g128>(exec, w));
    double const searched = error_of(w, ts::quantize<ts::int4_g128>(exec, w, ts::least_error_range{}));
    double const iterated = error_of(w, ts::quantize<ts::int4_g128>(exec, w, ts::lloyd_max_range{}));
    CHECK(searched < 0.95 * widest);
    CHECK(iterated <= widest);
    CHECK(error_of(w, ts::quantize<ts::int4_g128>(exec, w, ts::percentile_range{1.0})) == widest);
    // e2m1 has 4 and then 6: a scale for which the largest weight is a 4 is often the better one.
    using gapped = ts::scheme<ts::e2m1, ts::group<32>, ts::fp16>;
    check_range<gapped>(w.view(), ts::least_error_range{.candidates = 24, .widest = 1.5f}, pool);
    double const narrow = error_of(w, ts::quantize<gapped>(exec, w, ts::least_error_range{}));
    CHECK(error_of(w, ts::quantize<gapped>(exec, w, ts::least_error_range{.candidates = 96, .widest = 1.5f})) < 0.95 * narrow);
    CHECK(same(ts::quantize<ts::int4_g128>(w), ts::quantize<ts::int4_g128>(exec, w)));
}

TEST_CASE("what is not finite, and outputs of another shape, are refused on every backend") {
    auto w = weights(4, 64);
    w(2, 40) = std::numeric_limits<float>::infinity();
    auto const q = ts::quantize<ts::int4_g32>(ts::cpu<>{}, w, ts::least_error_range{});
    CHECK(same(q, ts::quantize<ts::int4_g32>(ts::reference{}, w, ts::least_error_range{})));
    CHECK(q.view()(2, 33) != q.view()(2, 33));
    CHECK(q.view()(2, 31) == q.view()(2, 31));
    using without_nan = ts::scheme<ts::int4, ts::group<32>, ts::e2m1>;
    CHECK_THROWS_AS(ts::quantize<without_nan>(ts::cpu<>{}, w), ts::unsupported_error);
    CHECK_THROWS_AS(ts::quantize<without_nan>(ts::reference{}, w), ts::unsupported_error);
    CHECK_THROWS_WITH_AS(ts::quantize<ts::int4_g128>(ts::cpu<>{}, w, ts::percentile_range{1.5}),
                         "tessera: quantize: fraction of percentile_range is 1.500000, expected 0 to 1", ts::unsupported_error);
    ts::quantized_tensor<ts::int4_g32> other{4, 63};
    CHECK_THROWS_AS(ts::quantize(ts::cpu<>{}, ts::matrix_view<float const>{w.view()}, ts::min_max_range{}, {}, other),
                    ts::shape_error);
}
