// SPDX-License-Identifier: MIT
// Masks: against torch with explicit masks (tests/data/attention/README.md), lanes against scalars, tiles against elements.

#include "vectors.hpp"

#include <tessera/attention/bias.hpp>
#include <tessera/attention/mask.hpp>
#include <tessera/attention/neighborhood.hpp>
#include <tessera/simd/memory.hpp>

#include <limits>
#include <utility>
#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;
using floats = ts::simd::floats<ts::native_arch>;

template <class Mask>
bool sees(Mask const& mask, index_t q, index_t k, index_t head = 0) {
    return mask(1.0, ts::coord<double>{q, k, 0.0, 0.0, head}) == 1.0;
}

/// Lanes along queries and along keys say what scalars say.
template <class Mask>
bool lanes_agree(Mask const& mask, index_t queries, index_t keys, index_t first_query = 0) {
    constexpr auto width = static_cast<index_t>(floats::size);
    alignas(64) float ramp[width], seen[width];
    for (index_t l = 0; l < width; ++l) ramp[l] = static_cast<float>(l);
    floats const lane = floats::load_aligned(ramp);
    for (index_t q = first_query; q < queries; ++q)
        for (index_t k = 0; k < keys; ++k)
            for (bool const along_keys : {false, true}) {
                ts::coord<floats> const at{q, k, along_keys ? floats(0.0f) : lane, along_keys ? lane : floats(0.0f), 0};
                mask(floats(1.0f), at).store_aligned(seen);
                for (index_t l = 0; l < width; ++l) {
                    index_t const query = along_keys ? q : q + l, key = along_keys ? k + l : k;
                    if (query < queries && key < keys && (seen[l] == 1.0f) != sees(mask, query, key)) return false;
                }
            }
    return true;
}

/// `none` and `full` are true of all elements; how many tiles of those that are none were called so, as a share.
template <class Mask>
double share_of_none_found(Mask const& mask, index_t queries, index_t keys, index_t first_query = 0) {
    int none = 0, found = 0;
    for (index_t q = first_query; q < queries; ++q)
        for (index_t k = 0; k < keys; ++k)
            for (index_t const rows : {1, 4, 16})
                for (index_t const columns : {1, 8, 16}) {
                    if (q + rows > queries || k + columns > keys) continue;
                    bool any = false, every = true;
                    for (index_t i = q; i < q + rows; ++i)
                        for (index_t j = k; j < k + columns; ++j) {
                            bool const seen = sees(mask, i, j);
                            any = any || seen;
                            every = every && seen;
                        }
                    auto const said = mask.visibility(ts::score_tile{q, q + rows, k, k + columns, 0});
                    if ((said == ts::visibility::none && any) || (said == ts::visibility::full && !every)) return -1;
                    none += !any;
                    found += said == ts::visibility::none;
                }
    return none == 0 ? 1 : static_cast<double>(found) / none;
}

template <class Mask>
void check_mask(char const* name, Mask const& mask, double least_share) {
    CAPTURE(name);
    vectors const c{name};
    tally ratios;
    CHECK(ratios(judge(ts::reference{}, c, mask)));
    index_t const n = c.keys();
    CHECK(lanes_agree(mask, n, n));
    CHECK(share_of_none_found(mask, n, n) >= least_share);
}

} // namespace

TEST_CASE("masks equal torch's; lanes equal scalars; tiles equal elements") {
    check_mask("top_left", ts::top_left_causal(21, 13), 1);
    check_mask("unseen", ts::shifted_causal{21 - 13 - 8}, 1);
    check_mask("prefix", ts::either(ts::keys_before{11}, ts::causal), 1);
    check_mask("band", ts::band{5, 3}, 1);
    CHECK(share_of_none_found(ts::chunked{9}, 40, 40) == 1);
    CHECK(lanes_agree(ts::chunked{9}, 40, 40));
    std::int32_t const offsets[] = {0, 7, 7, 20, 21, 40};
    ts::segments const packed{ts::vector_view<std::int32_t const>{offsets, 6}};
    CHECK(share_of_none_found(packed, 40, 40) == 1);
    CHECK(lanes_agree(packed, 40, 40));
    std::int32_t const parents[] = {-1, 0, 0, 1, 1, 2, 5, 3, -1, 8};
    check_mask("tree", ts::token_tree{ts::vector_view<std::int32_t const>{parents, 10}, 20}, 0.5);
    using axis = ts::neighborhood_axis;
    check_mask("na1d", ts::neighborhood_1d(40, 5, 3), 0.4);
    check_mask("na2d", ts::neighborhood<2>{{axis{9, 4, 2}, axis{11, 5, 1, 2, true}}}, 0.5);
    check_mask("na3d", ts::neighborhood<3>{{axis{4, 2}, axis{5, 3, 1, 3}, axis{6, 2, 3}}}, 0.3);
}

TEST_CASE("neighborhoods: positions below 0 see nothing, in every backend") {
    using axis = ts::neighborhood_axis;
    auto const check = [](auto const& mask, index_t keys) {
        for (index_t q = -40; q < 0; ++q)
            for (index_t k = 0; k < keys; ++k) CHECK_FALSE(sees(mask, q, k));
        CHECK(lanes_agree(mask, 10, keys, -40));
        CHECK(share_of_none_found(mask, 20, keys, -40) > 0);
        CHECK(ts::keys_of(mask, -9, 0).first == ts::keys_of(mask, -9, 0).last);
    };
    check(ts::neighborhood_1d(40, 5), 40);
    check(ts::neighborhood<3>{{axis{4, 2}, axis{5, 3, 1, 3}, axis{6, 2, 3}}}, 120);
    ts::neighborhood<2> const mask{{axis{9, 4, 2}, axis{11, 5, 1, 2, true}}};
    check(mask, 99);
    index_t const extra = 70, heads = 2;
    auto const q = random_tensor(99 + extra, heads, 8, 1), k = random_tensor(99, 1, 8, 2), v = random_tensor(99, 1, 8, 3);
    ts::tensor<float, 3> out(99 + extra, heads, 8), expected(99 + extra, heads, 8);
    ts::matrix<float> lse(heads, 99 + extra), expected_lse(heads, 99 + extra);
    ts::attention(native{}, q, k, v, out, mask, lse);
    ts::attention(ts::reference{}, q, k, v, expected, mask, expected_lse);
    CHECK(worst_ratio<float>(q.view(), ts::kv_view{k.view(), v.view()}, std::as_const(out).view(), std::as_const(expected).view(),
                             std::as_const(lse).view(), std::as_const(expected_lse).view(), mask) <= 1);
    CHECK((lse(1, extra - 1) == ts::minus_infinity && lse(1, extra) > ts::minus_infinity));
}

TEST_CASE("chunks, segments and neighborhoods, forward and backward") { // other masks natively: dense_mask_test.cpp
    tally ratios;
    std::int32_t const offsets[] = {0, 7, 7, 20, 21, 40};
    ts::segments const packed{ts::vector_view<std::int32_t const>{offsets, 6}};
    using axis = ts::neighborhood_axis;
    CHECK(ratios(judge(ts::reference{}, vectors{"chunked"}, ts::causal | ts::chunked{9})));
    CHECK(ratios(judge(ts::reference{}, vectors{"segments"}, ts::causal | packed)));
    CHECK(ratios(judge(native{}, vectors{"na2d"}, ts::neighborhood<2>{{axis{9, 4, 2}, axis{11, 5, 1, 2, true}}})));
    CHECK(ratios.is_tight());
}

TEST_CASE("neighborhoods: NATTEN's windows") {
    auto const windows = [](ts::neighborhood_axis const& a) {
        ts::neighborhood<1> const mask{{a}};
        std::string text;
        for (index_t q = 0; q < a.length; ++q) {
            text += '[';
            for (index_t k = 0; k < a.length; ++k)
                if (sees(mask, q, k)) text += static_cast<char>('0' + k);
            text += ']';
        }
        return text;
    };
    CHECK(windows({8, 3}) == "[012][012][123][234][345][456][567][567]");
    CHECK(windows({8, 4}) == "[0123][0123][0123][1234][2345][3456][4567][4567]");
    CHECK(windows({8, 3, 2}) == "[024][135][024][135][246][357][246][357]");
    CHECK(windows({8, 3, 1, 1, true}) == "[0][01][012][123][234][345][456][567]");
    CHECK(windows({8, 4, 1, 2}) == "[0123][0123][1234][1234][3456][3456][4567][4567]");
    CHECK(windows({8, 4, 1, 4}) == "[0123][0123][0123][0123][4567][4567][4567][4567]");
    CHECK(windows({8, 4, 1, 2, true}) == "[0][01][012][0123][234][2345][456][4567]");
    CHECK(windows({8, 1}) == "[0][1][2][3][4][5][6][7]");
    CHECK(windows({8, 8}) == "[01234567][01234567][01234567][01234567][01234567][01234567][01234567][01234567]");
}

TEST_CASE("masks given as bytes: dense, blocks, a user's rule") {
    std::vector<std::uint8_t> seen(30 * 40), blocks(3 * 5);
    random_floats next{3};
    for (auto& s : seen) s = next.uniform() < 0.3f;
    for (auto& s : blocks) s = next.uniform() < 0.5f;
    ts::dense_mask const dense{ts::tensor_view<std::uint8_t const, 3>{seen.data(), 1, 30, 40}};
    ts::block_mask const block{ts::tensor_view<std::uint8_t const, 3>{blocks.data(), 1, 3, 5}, 10, 8};
    ts::seen_where const rule{[&](index_t q, index_t k, index_t) noexcept { return seen[static_cast<std::size_t>(q * 40 + k)] != 0; }};
    CHECK(lanes_agree(dense, 30, 40));
    CHECK(share_of_none_found(dense, 30, 40) == 1);
    CHECK(lanes_agree(block, 30, 40));
    CHECK(share_of_none_found(block, 30, 40) == 1);
    for (index_t q = 0; q < 30; ++q)
        for (index_t k = 0; k < 40; ++k) {
            CHECK(sees(dense, q, k) == sees(rule, q, k));
            CHECK(sees(block, q, k) == (blocks[static_cast<std::size_t>(q / 10 * 5 + k / 8)] != 0));
        }
}

TEST_CASE("masks: positions below 0 are in no chunk, sequence or block; bands may be endless") {
    std::uint8_t const all[] = {1};
    std::int32_t const offsets[] = {0, 8};
    ts::score_tile const tile{-1, 2, 0, 2, 0};
    auto const check = [&](auto const& mask) {
        CHECK(sees(mask, 0, 0));
        CHECK(!sees(mask, -1, 0));
        CHECK(mask.visibility(tile) == ts::visibility::partial);
    };
    check(ts::chunked{8});
    check(ts::segments{ts::vector_view<std::int32_t const>{offsets, 2}});
    check(ts::block_mask{ts::tensor_view<std::uint8_t const, 3>{all, 1, 1, 1}, 8, 8});
    index_t const most = std::numeric_limits<index_t>::max();
    CHECK(ts::band{most, most}.keys_of(-3, 9).first < 0);
    CHECK(ts::band{most, most}.keys_of(-3, 9).last > 9);
}

TEST_CASE("distance_buckets are T5's") {
    ts::distance_buckets const both{32, 128, ts::key_side::both}, before{32, 128, ts::key_side::before};
    // Known from the model: 8 to 11, 12 to 15, 16 to 22, 23 to 31, 32 to 45, 46 to 63, 64 to 90, beyond.
    index_t const firsts[] = {8, 12, 16, 23, 32, 46, 64, 91};
    for (index_t b = 0; b < 8; ++b) {
        CHECK(both(firsts[b]) == 8 + b);
        CHECK(both(firsts[b] - 1) == 7 + b);
        CHECK(both(-firsts[b]) == 24 + b);
    }
    CHECK(both(0) == 0);
    CHECK(both(-1) == 17);
    CHECK(before(-5) == 0);
    CHECK(before(15) == 15);
    CHECK(before(1000) == 31);
}

TEST_CASE("masks refuse what does not fit") {
    std::int32_t const falling[] = {0, 5, 3}, late[] = {1, 5}, cycle[] = {-1, 1};
    auto const check = [](auto const& mask, char const* sentence) {
        CHECK_THROWS_WITH_AS(ts::detail::check_score("attention", mask, 2), sentence, ts::shape_error);
    };
    check(ts::segments{ts::vector_view<std::int32_t const>{falling, 3}},
          "tessera: attention: an offset of segments is 3, expected at least 5");
    check(ts::segments{ts::vector_view<std::int32_t const>{late, 2}},
          "tessera: attention: first offset of segments is 1, expected 0 (where the first sequence begins)");
    check(ts::token_tree{ts::vector_view<std::int32_t const>{cycle, 2}, 4},
          "tessera: attention: a parent of token_tree is 1, expected -1 to 0");
    check(ts::neighborhood_1d(10, 4, 3), "tessera: attention: dilation of neighborhood is 3, expected 1 to 2");
    ts::tensor<float, 3> const x(11, 1, 8);
    ts::tensor<float, 3> out(11, 1, 8);
    CHECK_THROWS_WITH_AS(ts::attention(native{}, x, x, x, out, ts::neighborhood<2>{{ts::neighborhood_axis{9, 4, 2}, ts::neighborhood_axis{1, 1}}}),
                         "tessera: attention: number of positions under neighborhood is 11, expected 0 to 9", ts::shape_error);
    check(ts::neighborhood_1d(10, 11), "tessera: attention: window of neighborhood is 11, expected 1 to 10");
    index_t const most = std::numeric_limits<index_t>::max(), least = std::numeric_limits<index_t>::min();
    std::uint8_t const byte = 1;
    float const number = 1;
    ts::tensor_view<std::uint8_t const, 3> const bytes{&byte, 1, 1, 1};
    CHECK_THROWS_AS(ts::detail::check_score("attention", ts::shifted_causal{most}, 2), ts::shape_error);
    CHECK_THROWS_AS(ts::detail::check_score("attention", ts::dense_mask{bytes, least}, 2), ts::shape_error);
    CHECK_THROWS_AS(ts::detail::check_score("attention", ts::dense_bias{ts::tensor_view<float const, 3>{&number, 1, 1, 1}, least}, 1), ts::shape_error);
    check(ts::chunked{0}, "tessera: attention: size of chunked is 0, expected at least 1");
    check(ts::band{-1, 2}, "tessera: attention: before of band is -1, expected at least 0");
}
