// SPDX-License-Identifier: MIT
// Prefill from caches of small integers: where the processor has matrix tiles, codes are multiplied as they are, with queries and
// weights in digits. Judged by the definition and float32's bound.

#include "support/code_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

using namespace attention_tests;

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

/// A score of a program's own: what is nearer than `near` is hidden, what is farther than `far` is NaN.
struct edges {
    float near = 0;
    float far = 1e9f;

    template <class V, class At>
    V operator()(V s, At const& at) const noexcept {
        using ts::select;
        V const seen = select(at.distance() < V(near), V(ts::minus_infinity), s);
        return select(at.distance() > V(far), V(nan_value), seen);
    }
};
/// One type for all, which compiles once.
auto windowed(index_t width, edges const& e = {}) { return ts::causal | ts::window{width} | e; }

} // namespace

TEST_CASE("prefill of codes: tiles of keys, of columns, of queries; their edges") {
    double worst = 0;
    for (sizes const s : {sizes{16, 16, 2, 64}, {5, 1, 4, 8}, {33, 79, 8, 128}, {6, 300, 6, 72}, {70, 130, 2, 192}, {200, 200, 2, 40}}) {
        worst = std::max(worst, code_ratio<ts::int8_per_token>(s, windowed(1000)));
        worst = std::max(worst, code_ratio<ts::int4_g64>(s));
    }
    CHECK(worst >= 0.05);
    for (index_t const dim : {96, 160}) code_ratio<ts::scheme<ts::e2m1, ts::group<32>, ts::fp16>, ts::uint4_g128>({20, 141, 4, dim});
}

TEST_CASE("prefill of codes: windows begin within a tile, rows that see nothing, one large number in a query") {
    code_ratio<ts::int8_per_token>({90, 300, 4, 64}, windowed(75));
    code_ratio<ts::int8_per_token>({90, 90, 4, 64}, windowed(30, {.near = 5}));
    for (float const spike : {1e4f, 1e-4f}) code_ratio<ts::int4_g64>({20, 200, 8, 128}, ts::causal, spike);
}

TEST_CASE("prefill of codes: queries that are not finite, scales that are NaN, and what no query sees") {
    auto const keys = random_tensor(200, 2, 64, 1);
    auto values = random_tensor(200, 2, 64, 2);
    values(199, 0, 3) = nan_value; // the whole group's; the last query alone sees it
    ts::kv_cache<ts::key<ts::int4_g64>, ts::value<ts::int4_g64>> kv{200, 2, 64};
    ts::append(ts::reference{}, kv, keys, values);
    auto q = random_tensor(50, 4, 64, 3);
    ts::tensor<float, 3> out(50, 4, 64);
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
    bool right = true;
    for (index_t i = 0; i < 50; ++i)
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < 64; ++d) right &= std::isnan(out(i, h, d)) == (i == 49 && h < 2);
    CHECK(right);
    q(7, 3, 5) = nan_value;
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
    right = true;
    for (index_t i = 0; i < 49; ++i)
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < 64; ++d) right &= std::isnan(out(i, h, d)) == (i == 7 && h == 3);
    CHECK(right);
    // A score that is no number makes its query's output NaN, and no other's.
    q(7, 3, 5) = 1;
    values(199, 0, 3) = 1;
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>> clean{200, 2, 64};
    ts::append(ts::reference{}, clean, keys, values);
    ts::attention(ts::cpu{ts::serial{}}, q, clean, out, windowed(1000, {.far = 170}));
    right = true;
    for (index_t i = 0; i < 50; ++i)
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < 64; ++d) right &= std::isnan(out(i, h, d)) == (150 + i > 170);
    CHECK(right);
}
