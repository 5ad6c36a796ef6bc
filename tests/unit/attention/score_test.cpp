// SPDX-License-Identifier: MIT
// Score functors: what a mask says of a tile is what it does to its elements; pipelines; the default scale.

#include "attention_support.hpp"

#include <doctest/doctest.h>

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
