// SPDX-License-Identifier: MIT
// Caches whose keys are turned when they are read (positions), or rows before they are rounded (Hadamard).

#include "attention_support.hpp"

#include <tessera/attention/hadamard_cache.hpp>
#include <tessera/attention/rotary_cache.hpp>
#include <tessera/nn/rope.hpp>

#include <doctest/doctest.h>

#include <utility>
#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;
using few = ts::kv_formats<ts::fp16, ts::int4_g32>;

/// Attention over the cache has the bits of attention over its decoded keys, turned by `rope`.
template <class Style, class Exec, class Cache>
void check_turned(Exec const& exec, Cache const& cache, ts::rope_table const& table) {
    auto const v = cache.view();
    auto const stored = cache.stored().view();
    ts::tensor<float, 3> keys(v.tokens, v.kv_heads, v.key_dim), values(v.tokens, v.kv_heads, v.value_dim);
    std::vector<index_t> positions;
    for (index_t t = 0; t < v.tokens; ++t) {
        positions.push_back(cache.position(t));
        for (index_t h = 0; h < v.kv_heads; ++h) {
            for (index_t d = 0; d < v.key_dim; ++d) keys(t, h, d) = stored.keys(h, v.slot(t), d);
            for (index_t d = 0; d < v.value_dim; ++d) values(t, h, d) = stored.values(h, v.slot(t), d);
        }
    }
    ts::rope(exec, Style{}, keys, table, ts::vector_view<index_t const>{positions.data(), v.tokens}, keys);
    ts::kv_view plain{keys.view(), values.view()};
    plain.first_position = v.first_position;
    for (index_t const queries : {1, 3, 40}) {
        auto const q = random_tensor(queries, 2 * v.kv_heads, v.key_dim, 5);
        ts::tensor<float, 3> a(queries, 2 * v.kv_heads, v.value_dim), b(queries, 2 * v.kv_heads, v.value_dim);
        ts::attention(exec, q, plain, a, ts::window{70});
        ts::attention(exec, q, cache, b, ts::window{70});
        CHECK(equal_bits(a, b));
    }
}

template <class Style>
void check_rotary(ts::kv_layout layout, index_t dims) {
    index_t const dim = 64, kv_heads = 2;
    ts::rope_table const table{400, dims};
    ts::basic_any_kv_cache<few> stored{few::parse("int4_g32,fp16"), 120, kv_heads, dim, 24, layout};
    ts::rotary_kv_cache cache{std::move(stored), Style{}, table};
    for (index_t const n : {70, 1, 49}) {
        auto const k = random_tensor(n, kv_heads, dim, static_cast<std::uint64_t>(n)), v = random_tensor(n, kv_heads, 24, 3);
        ts::append(native{}, cache, k, v);
    }
    CHECK(cache.next_position() == 120);
    check_turned<Style>(native{}, cache, table);
    check_turned<Style>(ts::reference{}, cache, table);
    cache.shift(20, 60, -7);
    cache.shift(100, 120, 30);
    CHECK(cache.position(59) == 52);
    CHECK(cache.next_position() == 150);
    check_turned<Style>(native{}, cache, table);
    if (layout == ts::kv_layout::contiguous) return;
    ts::append(native{}, cache, random_tensor(130, kv_heads, dim, 1), random_tensor(130, kv_heads, 24, 2)); // more than there is room
    CHECK(cache.tokens() == 120);
    CHECK(cache.position(0) == 160);
    check_turned<Style>(native{}, cache, table);
    cache.truncate(0);
    CHECK(cache.next_position() == 160);
    cache.clear();
    CHECK(cache.next_position() == 0);
}

} // namespace

TEST_CASE("rotary_kv_cache: the bits of attention over decoded keys turned by rope, wherever segments are shifted to") {
    check_rotary<ts::rope_halves>(ts::kv_layout::contiguous, 64);
    check_rotary<ts::rope_interleaved>(ts::kv_layout::ring, 40); // elements beyond are not turned
}

TEST_CASE("rotary_kv_cache: golden turns, positions that the table does not have") {
    ts::rope_table const table{10, 2, 1.0};
    ts::rotary_kv_cache cache{ts::kv_cache<ts::key<float>, ts::value<float>>{12, 1, 2}, ts::rope_halves{}, table};
    ts::tensor<float, 3> k(1, 1, 2);
    k(0, 0, 0) = 1;
    k(0, 0, 1) = 0;
    for (int i = 0; i < 6; ++i) ts::append(native{}, cache, k, k);
    cache.shift(5, 6, 2); // R(2) R(5) = R(7)
    CHECK(cache.view().keys(0, 5, 0) == static_cast<float>(std::cos(7.0)));
    CHECK(cache.view().keys(0, 5, 1) == static_cast<float>(std::sin(7.0)));
    CHECK_THROWS_WITH_AS(cache.shift(0, 6, 3), "tessera: shift: position of a token is 10, expected 0 to 9", ts::shape_error);
    CHECK_THROWS_AS(cache.shift(0, 6, -1), ts::shape_error);
    CHECK(cache.position(5) == 7);
    CHECK_THROWS_WITH_AS(ts::append(native{}, cache, random_tensor(3, 1, 2, 1), random_tensor(3, 1, 2, 1)),
                         "tessera: append: last position plus one is 11, expected 0 to 10", ts::shape_error);
    CHECK(cache.tokens() == 6);
}

TEST_CASE("hadamard_kv_cache: rotations undo each other, exactly where numbers are small") {
    // Order 16 halves twice: rotated integers, their products and sums are exact, and so scores are those of plain keys.
    index_t const n = 37, heads = 4;
    auto const integers = [&](index_t tokens, index_t h, std::uint64_t seed) {
        auto x = random_tensor(tokens, h, 16, seed);
        for (index_t i = 0; i < x.size(); ++i) x.data()[i] = std::nearbyint(4 * x.data()[i]);
        return x;
    };
    auto const k = integers(n, 2, 1), v = integers(n, 2, 2);
    using cache_type = ts::kv_cache<ts::key<float>, ts::value<float>>;
    cache_type plain{n, 2, 16};
    ts::hadamard_kv_cache cache{cache_type{n, 2, 16}};
    ts::append(native{}, plain, k, v);
    ts::append(native{}, cache, k, v);
    for (index_t const queries : {1, 30}) {
        auto const q = integers(queries, heads, 3);
        ts::tensor<float, 3> a(queries, heads, 16), b(queries, heads, 16);
        ts::matrix<float> lse(heads, queries), rotated_lse(heads, queries);
        auto const run = [&](auto const& exec, auto const& score) {
            ts::attention(exec, q, plain, a, score, lse);
            ts::attention(exec, q, cache, b, score, rotated_lse);
            CHECK(std::equal(lse.data(), lse.data() + lse.size(), rotated_lse.data()));
        };
        run(native{}, ts::scaled{0.125f} | ts::causal);
        run(ts::reference{}, ts::scaled{0.125f} | ts::causal);
        run(native{}, ts::scaled{0.125f} | ts::window{1}); // one key: its value
        CHECK(equal_bits(a, b));
    }
    CHECK_THROWS_AS(ts::append(native{}, cache, k, v), ts::shape_error); // full
    CHECK_THROWS_AS((ts::hadamard_kv_cache{cache_type{4, 1, 16}, ts::hadamard{16, 16}, ts::hadamard{8}}), ts::shape_error);
}

TEST_CASE("hadamard_kv_cache: a channel of outliers costs four bits less") {
    index_t const n = 64;
    auto k = random_tensor(n, 1, 64, 1), v = random_tensor(n, 1, 64, 2);
    for (index_t t = 0; t < n; ++t) v(t, 0, 7) *= 30;
    using cache_type = ts::kv_cache<ts::key<ts::fp16>, ts::value<ts::scheme<ts::int4, ts::per_channel, ts::fp16>>>;
    cache_type plain{n, 1, 64};
    ts::hadamard_kv_cache cache{cache_type{n, 1, 64}};
    ts::append(native{}, plain, k, v);
    ts::append(native{}, cache, k, v);
    auto const q = random_tensor(8, 2, 64, 3);
    ts::tensor<float, 3> exact(8, 2, 64), a(8, 2, 64), b(8, 2, 64);
    ts::attention(ts::reference{}, q, k, v, exact);
    ts::attention(native{}, q, plain, a);
    ts::attention(native{}, q, cache, b);
    auto const error = [&](ts::tensor<float, 3> const& x) {
        double sum = 0;
        for (index_t i = 0; i < x.size(); ++i) sum += std::pow(double{x.data()[i]} - exact.data()[i], 2.0);
        return sum;
    };
    CHECK(error(b) < error(a));
}
