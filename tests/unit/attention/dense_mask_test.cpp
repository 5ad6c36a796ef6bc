// SPDX-License-Identifier: MIT
// dense_mask, and every other mask's tiles, through the kernels of processors, forward and backward, against torch with explicit
// masks (tests/data/attention/README.md). Masks other than dense_mask come behind pointers, so that one kernel is compiled for all;
// mask_test.cpp judges their functors.

#include "vectors.hpp"

#include <tessera/attention/mask.hpp>
#include <tessera/attention/neighborhood.hpp>

#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

/// Which tiles a kernel asked about, by answer.
struct answers {
    int none = 0, partial = 0, full = 0;
};

/// Any mask or pipeline of masks, which must outlive it: what it sees, one score at a time, and its own tiles and spans.
class some_mask {
public:
    template <class Mask>
    some_mask(Mask const& mask, answers& asked)
        : mask_{&mask}, asked_{&asked}, sees_{[](void const* m, index_t q, index_t k, index_t head) noexcept {
              return (*static_cast<Mask const*>(m))(1.0, ts::coord<double>{q, k, 0.0, 0.0, head}) == 1.0;
          }},
          visibility_{[](void const* m, ts::score_tile const& t) noexcept { return ts::visibility_of(*static_cast<Mask const*>(m), t); }},
          keys_of_{[](void const* m, index_t a, index_t b) noexcept { return ts::keys_of(*static_cast<Mask const*>(m), a, b); }} {}

    bool sees(index_t query, index_t key, index_t head) const noexcept { return sees_(mask_, query, key, head); }
    template <class V>
    V operator()(V s, ts::coord<V> at) const noexcept {
        return ts::detail::keep_where(s, at, [&](index_t query, index_t key) noexcept { return sees(query, key, at.head); });
    }
    ts::visibility visibility(ts::score_tile const& t) const noexcept {
        ts::visibility const v = visibility_(mask_, t);
        ++(v == ts::visibility::none ? asked_->none : v == ts::visibility::full ? asked_->full : asked_->partial);
        return v;
    }
    ts::key_span keys_of(index_t first, index_t last) const noexcept { return keys_of_(mask_, first, last); }

private:
    void const* mask_;
    answers* asked_;
    bool (*sees_)(void const*, index_t, index_t, index_t) noexcept;
    ts::visibility (*visibility_)(void const*, ts::score_tile const&) noexcept;
    ts::key_span (*keys_of_)(void const*, index_t, index_t) noexcept;
};

tally ratios;

/// The mask by its own tiles, and the same as bytes, one plane for all heads.
template <class Mask>
void check_natively(char const* name, Mask const& mask) {
    CAPTURE(name);
    vectors const c{name};
    answers asked;
    some_mask const some{mask, asked};
    CHECK(ratios(judge(native{}, c, some)));
    CHECK(asked.none + asked.partial + asked.full > 0);
    index_t const first = c.keys() - c.queries();
    std::vector<std::uint8_t> seen;
    for (index_t q = 0; q < c.queries(); ++q)
        for (index_t k = 0; k < c.keys(); ++k) seen.push_back(some.sees(first + q, k, 0));
    ts::dense_mask const dense{ts::tensor_view<std::uint8_t const, 3>{seen.data(), 1, c.queries(), c.keys()}, first};
    CHECK(ratios(judge(native{}, c, dense)));
}

} // namespace

TEST_CASE("dense_mask equals torch's boolean mask, a plane for every head") {
    vectors const c{"dense"};
    index_t const heads = 4, queries = 70, keys = 150;
    std::vector<std::uint8_t> seen;
    for (index_t h = 0; h < heads; ++h)
        for (index_t i = 0; i < queries; ++i)
            for (index_t j = 0; j < keys; ++j) {
                index_t const kind = (h + i / 20 + 2 * (j / 24)) % 3; // of a block: hidden, seen, mixed
                seen.push_back(i != 5 && (kind == 1 || (kind == 2 && (7 * i + 13 * j + 5 * h) % 11 < 4)));
            }
    ts::dense_mask const mask{ts::tensor_view<std::uint8_t const, 3>{seen.data(), heads, queries, keys}, keys - queries};
    CHECK(ratios(judge(ts::reference{}, c, mask)));
    CHECK(ratios(judge(native{}, c, mask)));
    answers asked; // tiles of all kinds are met
    CHECK(ratios(judge(native{}, c, some_mask{mask, asked})));
    CHECK((asked.none > 0 && asked.partial > 0 && asked.full > 0));
    // Decoding: each query alone, at the end of the keys.
    ts::kv_view const kv{c.k(), c.v()};
    for (index_t i = 0; i < queries; ++i) {
        ts::dense_mask const alone{mask.seen, keys - 1 - i};
        ts::range const row{i, i + 1};
        ts::tensor<float, 3> out(1, heads, c.value_dim());
        ts::matrix<float> lse(heads, 1);
        auto const q = ts::slice(c.q(), row, ts::all, ts::all);
        ts::attention(native{}, q, kv, out, alone, lse);
        CHECK(ratios(worst_ratio<float>(q, kv, std::as_const(out).view(), ts::slice(c.out(), row, ts::all, ts::all), std::as_const(lse).view(),
                                        ts::columns(c.log_sum_exp(), i, i + 1), alone, 1)));
    }
    CHECK(ratios.is_tight());
}

TEST_CASE("every mask's tiles on the CPU, and every mask as bytes: forward and backward") {
    check_natively("gqa", ts::causal);
    check_natively("top_left", ts::top_left_causal(21, 13));
    check_natively("unseen", ts::shifted_causal{21 - 13 - 8});
    check_natively("prefix", ts::either(ts::keys_before{11}, ts::causal));
    check_natively("band", ts::band{5, 3});
    check_natively("chunked", ts::causal | ts::chunked{9});
    std::int32_t const offsets[] = {0, 7, 7, 20, 21, 40};
    check_natively("segments", ts::causal | ts::segments{ts::vector_view<std::int32_t const>{offsets, 6}});
    std::int32_t const parents[] = {-1, 0, 0, 1, 1, 2, 5, 3, -1, 8};
    check_natively("tree", ts::token_tree{ts::vector_view<std::int32_t const>{parents, 10}, 20});
    using axis = ts::neighborhood_axis;
    check_natively("na1d", ts::neighborhood_1d(40, 5, 3));
    check_natively("na2d", ts::neighborhood<2>{{axis{9, 4, 2}, axis{11, 5, 1, 2, true}}});
    check_natively("na3d", ts::neighborhood<3>{{axis{4, 2}, axis{5, 3, 1, 3}, axis{6, 2, 3}}});
}
