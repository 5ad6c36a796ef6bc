// SPDX-License-Identifier: MIT
// KV caches in pages and in schemes: who holds what, what is written, attention over it, keys turned in place.

#include "unit/attention/attention_support.hpp"

#include <tessera/attention/rerotate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;
using half_pool = ts::kv_page_pool<ts::key<float>, ts::value<ts::int8_per_token>>;

/// Attention over a and b gives the same bits, for one query and many.
template <class A, class B>
bool same_attention(A const& a, B const& b, index_t heads) {
    for (index_t const queries : {1, 2, 40}) {
        auto const v = a.view();
        auto const q = random_tensor(queries, heads, v.key_dim, 7);
        ts::tensor<float, 3> x(queries, heads, v.value_dim), y(queries, heads, v.value_dim);
        ts::attention(native{}, q, a, x, ts::causal);
        ts::attention(native{}, q, b, y, ts::causal);
        if (!equal_bits(x, y)) return false;
    }
    return true;
}

/// A float cache of what a view stands for.
template <class View>
ts::kv_cache<ts::key<float>, ts::value<float>> decoded(View const& v) {
    ts::kv_cache<ts::key<float>, ts::value<float>> result{v.tokens, v.kv_heads, v.key_dim, v.value_dim};
    ts::tensor<float, 3> k(v.tokens, v.kv_heads, v.key_dim), x(v.tokens, v.kv_heads, v.value_dim);
    for (index_t t = 0; t < v.tokens; ++t)
        for (index_t h = 0; h < v.kv_heads; ++h) {
            for (index_t d = 0; d < v.key_dim; ++d) k(t, h, d) = v.keys(h, v.slot(t), d);
            for (index_t d = 0; d < v.value_dim; ++d) x(t, h, d) = v.values(h, v.slot(t), d);
        }
    ts::append(native{}, result, k, x);
    return result;
}

/// Attention over a is within float32's bound of the definition, for one query and many.
template <class A>
bool is_near_definition(A const& a, index_t heads) {
    auto const v = a.view();
    for (index_t const queries : {1, 2, 40}) {
        auto const q = random_tensor(queries, heads, v.key_dim, 7);
        ts::tensor<float, 3> expected(queries, heads, v.value_dim), out(queries, heads, v.value_dim);
        ts::matrix<float> expected_lse(heads, queries), lse(heads, queries);
        ts::attention(ts::reference{}, q, a, expected, ts::causal, expected_lse);
        ts::attention(native{}, q, a, out, ts::causal, lse);
        if (!(worst_ratio<float>(q.view(), v, std::as_const(out).view(), std::as_const(expected).view(), std::as_const(lse).view(),
                                 std::as_const(expected_lse).view(), ts::causal) <= 1))
            return false;
    }
    return true;
}

/// The codes of group g of a row of n hold numbers [first, last) of x as the file comment of kv_row.hpp says: the scale is that of
/// the group's extremes, rounded once in float32 and once to its type; every number is the nearest of the scheme's. Its
/// quotient has three roundings (a reciprocal, a product, a sum with the zero point), so that another may be chosen which is
/// farther by twice their error.
template <class S>
bool is_nearest(std::uint8_t const* row, index_t n, index_t g, float const* x) {
    using layout = ts::kv_row<S>;
    using format = typename S::format;
    using scale_type = std::conditional_t<std::is_same_v<typename S::scale_type, ts::fp32>, float, typename S::scale_type>;
    constexpr double u = ts::unit_roundoff<float>;
    index_t const first = g * layout::group(n), last = std::min(first + layout::group(n), n);
    double low = 0, high = 0, lowest = 0, highest = 0;
    for (index_t i = first; i < last; ++i) {
        low = std::min(low, double{x[i]});
        high = std::max(high, double{x[i]});
    }
    for (unsigned c = 0; c < 1u << format::bits; ++c) {
        double const value = format::decode(c);
        if (!std::isfinite(value)) continue;
        lowest = std::min(lowest, value);
        highest = std::max(highest, value);
    }
    double const most = S::is_affine ? highest : std::min(highest, -lowest);
    double const exact = S::is_affine ? (high - low) / most : std::max(high, -low) / most;
    double const scale = layout::scale(row, n, g), zero = layout::zero(row, n, g);
    double half = u * exact;
    if constexpr (!std::is_same_v<scale_type, float>) half = ts::half_step<scale_type>(static_cast<float>(exact));
    if (std::fabs(scale - exact) > half + ts::gamma(3, u) * exact) return false;
    for (index_t i = first; i < last; ++i) {
        double best = std::numeric_limits<double>::infinity();
        for (unsigned c = 0; c < 1u << format::bits; ++c) {
            double const value = format::decode(c);
            if (!S::is_affine && std::fabs(value) > most) continue;
            double const error = std::fabs((value - zero) * scale - x[i]);
            best = error < best ? error : best;
        }
        double const slack = ts::gamma(3, u) * (std::fabs(x[i]) + zero * scale);
        double const stored = layout::value(row, n, i);
        if (!(std::fabs(stored - x[i]) <= best + 2 * slack + 2 * u * std::fabs(stored))) return false;
    }
    return true;
}
template <class Format, class T>
bool holds_nearest(ts::kv_rows<T> const& rows, ts::tensor<float, 3> const& x) {
    for (index_t t = 0; t < x.extent(0); ++t)
        for (index_t h = 0; h < x.extent(1); ++h) {
            index_t const n = x.extent(2);
            auto const* const row = reinterpret_cast<std::uint8_t const*>(rows.row(h, t));
            for (index_t g = 0; g < ts::kv_row<Format>::groups(n); ++g)
                if (!is_nearest<Format>(row, n, g, &x(t, h, 0))) return false;
        }
    return true;
}

} // namespace

TEST_CASE("paged sequences: prefixes are shared, copied when written, given back") {
    half_pool pool{20, 4, 2, 16, 24};
    ts::kv_cache<ts::key<float>, ts::value<ts::int8_per_token>> plain{100, 2, 16, 24}, other{100, 2, 16, 24};
    auto const k = random_tensor(60, 2, 16, 1), v = random_tensor(60, 2, 24, 2);
    auto const part = [](auto const& x, index_t first, index_t last) {
        return ts::slice(x.view(), ts::range{first, last}, ts::all, ts::all);
    };
    ts::paged_sequence a{pool};
    for (auto const& [first, last] : {std::pair<index_t, index_t>{0, 3}, {3, 4}, {4, 18}}) {
        ts::append(native{}, a, part(k, first, last), part(v, first, last));
        ts::append(native{}, plain, part(k, first, last), part(v, first, last));
        ts::append(native{}, other, part(k, first, last), part(v, first, last));
    }
    CHECK(a.tokens() == 18);
    CHECK(pool.free_pages() == 15);
    CHECK(same_attention(a, plain, 4));
    {
        auto b = a.fork();
        CHECK(pool.free_pages() == 15);
        ts::append(native{}, b, part(k, 30, 40), part(v, 30, 40)); // one page copied, two more
        ts::append(native{}, other, part(k, 30, 40), part(v, 30, 40));
        CHECK(pool.free_pages() == 12);
        CHECK(b.pages()[3] == a.pages()[3]);
        CHECK(b.pages()[4] != a.pages()[4]);
        CHECK(same_attention(b, other, 4));
        CHECK(same_attention(a, plain, 4));
        ts::append(native{}, a, part(k, 18, 19), part(v, 18, 19)); // a's page is a's alone by now
        ts::append(native{}, plain, part(k, 18, 19), part(v, 18, 19));
        CHECK(pool.free_pages() == 12);
        auto moved = std::move(b);
        CHECK(b.tokens() == 0);
        CHECK(same_attention(moved, other, 4));
    }
    CHECK(pool.free_pages() == 15);
    CHECK(same_attention(a, plain, 4));
    CHECK_THROWS_WITH_AS(ts::append(native{}, a, random_tensor(62, 2, 16, 1), random_tensor(62, 2, 24, 1)),
                         "tessera: append: pages needed is 16, expected 0 to 15", ts::shape_error);
    CHECK(a.tokens() == 19);
    a.truncate(8);
    plain.truncate(8);
    CHECK(pool.free_pages() == 18);
    CHECK(same_attention(a, plain, 4));
}

namespace {

/// Wants more scratch than there is.
struct crowd {
    static constexpr index_t concurrency() noexcept { return index_t{1} << 60; }
    template <class F>
    void run(index_t, F const&) const noexcept {}
};

} // namespace

TEST_CASE("paged sequences: an append that fails leaves a sequence that goes on") {
    half_pool pool{5, 4, 1, 8, 8};
    ts::paged_sequence a{pool};
    auto const k = random_tensor(15, 1, 8, 1);
    auto const part = [&](index_t first, index_t last) { return ts::slice(k.view(), ts::range{first, last}, ts::all, ts::all); };
    ts::append(native{}, a, part(0, 2), part(0, 2));
    CHECK_THROWS_AS(ts::append(ts::cpu<ts::native_arch, crowd>{}, a, k, k), std::bad_alloc);
    CHECK(a.tokens() == 2);
    auto const b = a.fork();
    ts::append(native{}, a, part(2, 6), part(2, 6)); // its first page copied, one more
    CHECK(a.tokens() == 6);
    CHECK(a.pages().size() == 2);
    for (index_t d = 0; d < 8; ++d) {
        CHECK(a.view().keys(0, a.view().slot(5), d) == k(5, 0, d));
        CHECK(b.view().keys(0, b.view().slot(1), d) == k(1, 0, d));
    }
}

TEST_CASE("paged sequences: sinks and a window") {
    half_pool pool{10, 4, 1, 8, 8};
    ts::paged_sequence a{pool};
    auto const k = random_tensor(30, 1, 8, 1), v = random_tensor(30, 1, 8, 2);
    ts::append(native{}, a, k, v);
    a.keep(3, 9); // pages 1 to 4 go: tokens 4 to 19
    CHECK(a.tokens() == 14);
    CHECK(pool.free_pages() == 6);
    for (index_t d = 0; d < 8; ++d) {
        CHECK(a.view().keys(0, a.view().slot(3), d) == k(3, 0, d));
        CHECK(a.view().keys(0, a.view().slot(4), d) == k(20, 0, d));
    }
    a.keep(8, 10);
    CHECK(a.tokens() == 14);
    CHECK_THROWS_AS(a.drop(2, 4), ts::shape_error);
}

TEST_CASE("KV caches in schemes: what is stored, and attention over it") {
    index_t const tokens = 70;
    auto const check = [&]<class K, class V>(ts::key<K>, ts::value<V>, index_t dim) {
        ts::kv_cache<ts::key<K>, ts::value<V>> kv{tokens, 2, dim, dim + 1}, same{tokens, 2, dim, dim + 1};
        auto const k = random_tensor(tokens, 2, dim, 1), v = random_tensor(tokens, 2, dim + 1, 2);
        ts::append(native{}, kv, k, v);
        ts::append(ts::reference{}, same, k, v);
        CHECK(std::memcmp(kv.key_rows().data, same.key_rows().data, static_cast<std::size_t>(kv.key_rows().slot_stride)) == 0);
        auto const view = kv.view();
        CHECK(holds_nearest<K>(view.keys, k));
        CHECK(holds_nearest<V>(view.values, v));
        CHECK(is_near_definition(kv, 4));
    };
    using ts::group;
    using int4 = ts::scheme<ts::int4, group<32>, ts::fp16>;
    using uint4 = ts::scheme<ts::uint4, group<32>, ts::fp16, ts::affine>;
    using uint2 = ts::scheme<ts::uint2, group<16>, ts::fp16, ts::affine>;
    using float8 = ts::scheme<ts::e4m3, ts::per_channel, ts::fp32>;
    check(ts::key<int4>{}, ts::value<uint4>{}, 64);
    check(ts::key<ts::scheme<ts::int8, group<64>, ts::fp32>>{}, ts::value<int4>{}, 77);
    check(ts::key<float8>{}, ts::value<uint2>{}, 40);
    check(ts::key<ts::scheme<ts::uint3, group<32>, ts::fp16, ts::affine>>{}, ts::value<ts::scheme<ts::nf4, ts::per_channel, ts::bf16>>{}, 83);
    // 4.5 bits an element.
    CHECK(ts::kv_cache<ts::key<int4>, ts::value<int4>>{10, 2, 64}.bytes() == 10 * 2 * 2 * 36);
}

TEST_CASE("KV rows: zeros, NaN, infinity, a pool of codes") {
    using uint4 = ts::scheme<ts::uint4, ts::group<32>, ts::fp16, ts::affine>;
    ts::kv_page_pool<ts::key<uint4>, ts::value<uint4>> pool{3, 5, 1, 64};
    ts::paged_sequence a{pool};
    auto x = random_tensor(12, 1, 64, 1);
    for (index_t d = 0; d < 32; ++d) x(2, 0, d) = 0;
    x(3, 0, 5) = std::numeric_limits<float>::quiet_NaN();
    x(4, 0, 40) = std::numeric_limits<float>::infinity();
    ts::append(native{}, a, x, x);
    auto const v = a.view();
    CHECK(v.keys(0, v.slot(2), 7) == 0.0f);
    CHECK(std::isnan(v.keys(0, v.slot(3), 6)));
    CHECK(std::isfinite(v.keys(0, v.slot(3), 32)));
    CHECK(std::isnan(v.keys(0, v.slot(4), 63)));
    a.truncate(2);
    ts::append(native{}, a, random_tensor(9, 1, 64, 2), random_tensor(9, 1, 64, 3));
    CHECK(same_attention(a, decoded(a.view()), 2));
}

TEST_CASE("rerotate: keys of other positions, in any format, in shared pages") {
    double const frequencies[] = {1.0, 0.01};
    // A turned number is two products with rounded cosines and sines, and their sum; a pair's magnitudes are below 8 together.
    double const once = ts::gamma(3, ts::unit_roundoff<float>) * 8;
    ts::rope_table const table{8, ts::vector_view<double const>{frequencies, 2}};
    auto const turned = [&](auto style) {
        ts::kv_cache<ts::key<float>, ts::value<float>> kv{2, 1, 4};
        ts::tensor<float, 3> k(2, 1, 4);
        for (index_t d = 0; d < 4; ++d) k(1, 0, d) = k(0, 0, d) = static_cast<float>(d + 1);
        ts::append(native{}, kv, k, k);
        ts::rerotate(native{}, style, table, 2, kv, 1, 2);
        std::vector<float> row;
        for (index_t d = 0; d < 4; ++d) {
            CHECK(kv.view().keys(0, 0, d) == k(0, 0, d));
            CHECK(kv.view().values(0, 1, d) == k(0, 0, d));
            row.push_back(kv.view().keys(0, 1, d));
        }
        ts::rerotate(ts::reference{}, style, table, -2, kv, 1, 2);
        for (index_t d = 0; d < 4; ++d) CHECK(std::fabs(kv.view().keys(0, 1, d) - k(0, 0, d)) <= 3 * once);
        return row;
    };
    float const halves[] = {-3.144039f, 1.919605f, -.339143f, 4.039197f};
    float const interleaved[] = {-2.234742f, .077004f, 2.919405f, 4.059196f};
    auto const a = turned(ts::rope_halves{}), b = turned(ts::rope_interleaved{});
    for (std::size_t d = 0; d < 4; ++d) {
        CHECK(std::fabs(a[d] - halves[d]) <= once + 0.5e-6); // six digits
        CHECK(std::fabs(b[d] - interleaved[d]) <= once + 0.5e-6);
    }
    using int8_rows = ts::scheme<ts::int8, ts::per_channel, ts::fp32>;
    ts::kv_page_pool<ts::key<int8_rows>, ts::value<ts::fp16>> pool{8, 4, 2, 4};
    ts::paged_sequence whole{pool};
    ts::append(native{}, whole, random_tensor(10, 2, 4, 1), random_tensor(10, 2, 4, 2));
    auto edited = whole.fork();
    ts::rerotate(native{}, ts::rope_halves{}, table, 3, edited, 5, 10);
    CHECK(edited.pages()[0] == whole.pages()[0]);
    CHECK(edited.pages()[2] != whole.pages()[2]);
    float row[4];
    for (index_t d = 0; d < 4; ++d) row[d] = whole.view().keys(1, whole.view().slot(6), d);
    ts::detail::turn_row(ts::rope_halves{}, row, table.cosines().data_handle() + 6, table.sines().data_handle() + 6, 2, 1.0f);
    for (index_t d = 0; d < 4; ++d) // half a step of the largest
        CHECK(std::fabs(edited.view().keys(1, edited.view().slot(6), d) - row[d]) <= 0.5f * 5.0f / 127);
    CHECK_THROWS_AS(ts::rerotate(native{}, ts::rope_halves{}, table, 8, edited, 0, 10), ts::shape_error);
}
