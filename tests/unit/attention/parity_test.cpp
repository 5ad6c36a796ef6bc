// SPDX-License-Identifier: MIT
// Every instruction set against the reference, over shapes around registers, tiles and parts.

#include "attention_support.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace {

using namespace attention_tests;

template <class Format, class Archs = tessera_test::archs_by_width, class Score>
void check_shape(tally& ratios, shape const& s, Score const& score, index_t functor_roundings = 0) {
    using cache = ts::kv_cache<ts::key<Format>, ts::value<Format>>;
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.heads);
    CAPTURE(s.key_dim);
    CAPTURE(s.value_dim);
    cache kv{s.keys, s.kv_heads, s.key_dim, s.value_dim};
    ts::append(ts::reference{}, kv, random_tensor(s.keys, s.kv_heads, s.key_dim, 1),
               random_tensor(s.keys, s.kv_heads, s.value_dim, 2));
    auto const q = random_tensor(s.queries, s.heads, s.key_dim, 3);
    ts::tensor<float, 3> expected(s.queries, s.heads, s.value_dim);
    ts::matrix<float> expected_lse(s.heads, s.queries);
    ts::attention(ts::reference{}, q, kv, expected, score, expected_lse);
    for_each_arch<Archs>([&](auto const& exec) {
        ts::tensor<float, 3> out(s.queries, s.heads, s.value_dim);
        ts::matrix<float> lse(s.heads, s.queries);
        ts::attention(exec, q, kv, out, score, lse);
        CHECK(ratios(worst_ratio<float>(q.view(), kv.view(), std::as_const(out).view(), std::as_const(expected).view(),
                                        std::as_const(lse).view(), std::as_const(expected_lse).view(), score,
                                        functor_roundings)));
    });
}

} // namespace

TEST_CASE("attention: tokens around registers, tiles and parts") {
    tally ratios;
    for_each_token_shape([&](shape const& s) { check_shape<float>(ratios, s, ts::causal); });
    CHECK(ratios.is_tight());
}

TEST_CASE("attention: head dimensions and group sizes") {
    tally ratios;
    for_each_dimension([&](shape const& s) { check_shape<float>(ratios, s, ts::full); });
    for_each_group([&](shape const& s) { check_shape<float>(ratios, s, ts::causal); });
    // A step of decoding with latent keys, 16 heads to one; cross attention with more queries than keys.
    check_shape<float, tessera_test::best_arch>(ratios, {1, 70, 16, 1, 576, 512}, ts::causal);
    check_shape<float, tessera_test::best_arch>(ratios, {60, 7, 4, 2, 16, 24}, ts::full);
    CHECK(ratios.is_tight());
}

TEST_CASE("attention: formats of the cache") {
    tally ratios;
    for_each_format_shape([&](shape const& s) {
        check_shape<ts::fp32>(ratios, s, ts::causal);
        check_shape<ts::fp16, tessera_test::best_arch>(ratios, s, ts::causal);
        check_shape<ts::bf16, tessera_test::best_arch>(ratios, s, ts::causal);
        check_shape<ts::int8_per_token>(ratios, s, ts::causal);
    });
    CHECK(ratios.is_tight());
}

TEST_CASE("attention: scores") {
    tally ratios;
    for (index_t const queries : {1, 4, 50}) {
        check_shape<float>(ratios, {queries, 200, 2, 1, 32, 32}, ts::window{20});
        check_shape<float, tessera_test::best_arch>(ratios, {queries, 200, 2, 1, 32, 32}, ts::causal | ts::window{129});
        check_shape<float>(ratios, {queries, 200, 2, 1, 32, 32}, ts::soft_cap{5.0f} | ts::causal, 5);
        check_shape<float>(ratios, {queries, 200, 2, 1, 32, 32},
                           ts::causal | [](auto s, auto at) noexcept { return s - decltype(s)(0.01f) * at.distance(); }, 2);
        check_shape<float, tessera_test::best_arch>(ratios, {queries, 9, 2, 1, 3, 5}, ts::soft_cap{5.0f} | ts::causal | ts::window{4}, 5);
    }
    CHECK(ratios.is_tight());
}

TEST_CASE("attention: elements and strides of q, k, v and out") {
    tally ratios;
    // Everything in one (tokens, 3 heads, 2 dim) array, used at an offset and with every second column.
    index_t const tokens = 45;
    index_t const dim = 21;
    auto const all = random_tensor(tokens, 4, 2 * dim, 5);
    auto const part = [&](index_t first, index_t last) {
        auto const heads = ts::slice(all.view(), ts::all, ts::range{first, last}, ts::range{1, 2 * dim});
        using view = ts::tensor_view<float const, 3>;
        index_t const strides[] = {heads.stride(0), heads.stride(1), 2};
        return view{heads.data_handle(), view::mapping_type{ts::dynamic_extents<3>{tokens, last - first, dim}, strides}};
    };
    auto const q = part(0, 2);
    auto const k = part(2, 3);
    auto const v = part(3, 4);
    ts::tensor<float, 3> expected(tokens, 2, dim);
    ts::matrix<float> expected_lse(2, tokens);
    ts::attention(ts::reference{}, q, k, v, expected, ts::causal, expected_lse);
    for_each_arch([&](auto const& exec) {
        for (index_t const queries : {index_t{2}, tokens}) {
            auto const tail = ts::slice(q, ts::range{tokens - queries, tokens}, ts::all, ts::all);
            ts::tensor<ts::fp16, 3> half(queries, 2, dim);
            ts::tensor<float, 3> wide(queries, 2, 2 * dim);
            ts::matrix<float> lse(2, queries);
            auto const columns = ts::slice(wide.view(), ts::all, ts::all, ts::range{dim, 2 * dim});
            ts::attention(exec, tail, k, v, half, ts::causal);
            ts::attention(exec, tail, k, v, columns, ts::causal, lse);
            auto const expected_tail = ts::slice(expected.view(), ts::range{tokens - queries, tokens}, ts::all, ts::all);
            auto const lse_tail = ts::columns(expected_lse.view(), tokens - queries, tokens);
            ts::kv_view const kv{k, v};
            CHECK(ratios(worst_ratio<float>(tail, kv, columns, expected_tail, lse.view(), lse_tail, ts::causal)));
            CHECK(worst_ratio<ts::fp16>(tail, kv, half.view(), expected_tail, lse.view(), lse_tail, ts::causal) <= 1);
            bool untouched = true;
            for (index_t i = 0; i < queries; ++i)
                for (index_t d = 0; d < dim; ++d) untouched = untouched && wide(i, 1, d) == 0.0f;
            CHECK(untouched);
        }
    });
    CHECK(ratios.is_tight());
    // Queries in fp16 and bf16 are exact in float (loads are judged on every instruction set in tests/unit/simd).
    auto const half = random_tensor<ts::fp16>(20, 2, 16, 6);
    auto const brain = random_tensor<ts::bf16>(20, 2, 16, 6);
    auto const keys = random_tensor(20, 2, 16, 7);
    for_each_arch<tessera_test::best_arch>([&](auto const& exec) {
        auto const same = [&](auto const& x) {
            ts::tensor<float, 3> wide(20, 2, 16), a(20, 2, 16), b(20, 2, 16);
            for (index_t i = 0; i < x.size(); ++i) wide.data()[i] = static_cast<float>(x.data()[i]);
            ts::attention(exec, x, keys, keys, a);
            ts::attention(exec, wide, keys, keys, b);
            return equal_bits(a, b);
        };
        CHECK(same(half));
        CHECK(same(brain));
    });
}
