// SPDX-License-Identifier: MIT
// Score functors: what a mask says of a tile is what it does to its elements; pipelines; the default scale.

#include "attention_support.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <span>

namespace {

using namespace attention_tests;

/// What the elements of a tile say.
template <class Mask>
ts::visibility by_element(Mask const& mask, ts::score_tile t) {
    bool any = false;
    bool every = true;
    for (index_t q = t.first_query; q < t.last_query; ++q)
        for (index_t k = t.first_key; k < t.last_key; ++k) {
            bool const seen = mask(1.0, ts::coord<double>{q, k, 0.0, 0.0, t.head}) == 1.0;
            any = any || seen;
            every = every && seen;
        }
    return every ? ts::visibility::full : any ? ts::visibility::partial : ts::visibility::none;
}

template <class Mask>
bool tiles_agree(Mask const& mask) {
    for (index_t q = 0; q < 12; ++q)
        for (index_t k = 0; k < 12; ++k)
            for (index_t rows : {1, 2, 5})
                for (index_t columns : {1, 3, 4}) {
                    ts::score_tile const t{q, q + rows, k, k + columns, 0};
                    if (ts::visibility_of(mask, t) != by_element(mask, t)) return false;
                }
    return true;
}

} // namespace

TEST_CASE("score: visibility of a tile is the visibility of its elements") {
    CHECK(tiles_agree(ts::full));
    CHECK(tiles_agree(ts::causal));
    for (index_t const size : {1, 2, 4, 100}) {
        CHECK(tiles_agree(ts::window{size}));
        CHECK(tiles_agree(ts::causal | ts::window{size}));
    }
}

TEST_CASE("score: pipelines apply from left to right; masks are not transforms") {
    ts::coord<double> const at{5, 3, 0.0, 0.0, 0};
    auto const score = ts::scaled{2.0f} | ts::soft_cap{4.0f} | ts::causal;
    CHECK(score(3.0, at) == doctest::Approx(4 * std::tanh(1.5)));
    CHECK(score(3.0, ts::coord<double>{2, 3, 0.0, 0.0, 0}) == ts::minus_infinity);
    CHECK(at.distance() == 2.0);
    CHECK(at.query() == 5.0);
    CHECK(at.key() == 3.0);
    auto const ramp = ts::causal | [](auto s, auto where) noexcept { return s + where.distance(); };
    CHECK(ramp(1.0, at) == 3.0);
    static_assert(ts::score_mask<ts::causal_t> && ts::score_mask<ts::window> && !ts::score_mask<ts::soft_cap>);
    using ramp_type = std::remove_const_t<decltype(ramp)>;
    static_assert(ts::detail::has_transform<ramp_type> && ts::detail::has_mask<ramp_type>);
    static_assert(!ts::detail::has_transform<decltype(ts::causal | ts::window{3})>);
}

TEST_CASE("score: parameters that do not fit are refused, and nothing is written") {
    auto const q = random_tensor(3, 4, 16, 1);
    auto const k = random_tensor(9, 2, 16, 2);
    float const infinity = std::numeric_limits<float>::infinity();
    float const slopes[4] = {1, 2, 3, 4};
    using vector = ts::vector_view<float const>;
    ts::tensor<float, 3> out(3, 4, 16);
    auto const refused = [&](auto const& score, char const* sentence) {
        for (float& v : std::span{out.data(), 3 * 4 * 16}) v = 7.0f;
        CHECK_THROWS_WITH_AS(ts::attention(ts::reference{}, q, k, k, out, score), sentence, ts::shape_error);
        CHECK_THROWS_WITH_AS(ts::attention(ts::cpu<>{}, q, k, k, out, score), sentence, ts::shape_error);
        CHECK(std::ranges::all_of(std::span{out.data(), 3 * 4 * 16}, [](float v) { return v == 7.0f; }));
    };
    refused(ts::soft_cap{0.0f}, "tessera: attention: limit of soft_cap is 0.000000, expected a finite number above 0");
    refused(ts::scaled{0.5f} | ts::soft_cap{-30.0f} | ts::causal,
            "tessera: attention: limit of soft_cap is -30.000000, expected a finite number above 0");
    refused(ts::causal | ts::soft_cap{infinity},
            "tessera: attention: limit of soft_cap is inf, expected a finite number above 0");
    refused(ts::soft_cap{std::numeric_limits<float>::quiet_NaN()},
            "tessera: attention: limit of soft_cap is nan, expected a finite number above 0");
    refused(ts::window{0}, "tessera: attention: size of window is 0, expected at least 1");
    refused(ts::scaled{1.0f} | ts::causal | ts::window{-5}, "tessera: attention: size of window is -5, expected at least 1");
    refused(ts::alibi{vector{slopes, 3}} | ts::causal,
            "tessera: attention: number of slopes of alibi is 3, expected 4 (heads of q)");
    refused(ts::alibi{vector{nullptr, 4}},
            "tessera: attention: slopes of alibi is null but has 4 elements, expected 0 or a pointer");
    CHECK_NOTHROW(ts::attention(ts::cpu<>{}, q, k, k, out, ts::alibi{vector{slopes, 4}} | ts::soft_cap{1.0f} | ts::window{1}));
}

TEST_CASE("score: the default scale is 1 / sqrt(head_dim), anywhere `scaled` replaces it") {
    auto const q = random_tensor(3, 2, 16, 1);
    auto const k = random_tensor(9, 2, 16, 2);
    auto const run = [&](auto const& exec, auto const& score) {
        ts::tensor<float, 3> out(3, 2, 16);
        ts::attention(exec, q, k, k, out, score);
        return out;
    };
    ts::reference const exec;
    CHECK(equal_bits(run(exec, ts::causal), run(exec, ts::scaled{0.25f} | ts::causal)));
    CHECK(equal_bits(run(exec, ts::full), run(exec, ts::scaled{0.25f})));
    CHECK(equal_bits(run(exec, ts::scaled{1.0f} | ts::causal), run(exec, ts::causal | ts::scaled{1.0f})));
    CHECK(!equal_bits(run(exec, ts::causal), run(exec, ts::scaled{1.0f} | ts::causal)));
    ts::tensor<float, 3> out(3, 2, 16);
    ts::attention(exec, q, k, k, out);
    CHECK(equal_bits(out, run(exec, ts::full)));
}
