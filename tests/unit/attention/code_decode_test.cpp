// SPDX-License-Identifier: MIT
// Decoding from caches of small integers: where the processor has matrix tiles, codes are multiplied as they are, with queries
// and weights in digits. Judged like every other kernel, by the definition and float32's bound (int8, and how tight the
// bound is: parity_test.cpp).

#include "support/code_attention.hpp"

#include <limits>
#include <vector>

namespace {

using namespace attention_tests;

template <class Format>
void check_sizes() {
    // Tiles of keys, of columns, of rows; their edges; more than one part.
    for (sizes const s : {sizes{1, 1, 8, 128}, {1, 64, 2, 64}, {1, 79, 8, 128}, {2, 130, 12, 80}, {3, 17, 6, 192}, {1, 1100, 8, 40}})
        code_ratio<Format>(s);
}

} // namespace

TEST_CASE("decoding codes: one scale for a whole number of operands") {
    check_sizes<ts::int4_g64>();
    check_sizes<ts::uint4_g128>();
}

TEST_CASE("decoding codes: one scale for a part of an operand, and values from a table") {
    check_sizes<ts::scheme<ts::e2m1, ts::group<16>, ts::fp16>>();
}

TEST_CASE("decoding codes: one large number in a query") {
    for (float const spike : {1e4f, 1e-4f}) code_ratio<ts::int4_g64>({1, 200, 8, 128}, ts::causal, spike);
}

TEST_CASE("decoding codes: a value that a query does not see changes no bit, however large it is") {
    auto const keys = random_tensor(40, 2, 64, 1), q = random_tensor(2, 4, 64, 3);
    auto const first_query = [&](float factor) {
        auto values = random_tensor(40, 2, 64, 2);
        for (index_t d = 0; d < 64; ++d) values(39, 0, d) *= factor; // the last query alone sees it
        ts::kv_cache<ts::key<ts::int4_g64>, ts::value<ts::int4_g64>> kv{40, 2, 64};
        ts::append(ts::reference{}, kv, keys, values);
        ts::tensor<float, 3> out(2, 4, 64);
        ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
        return std::vector<float>(out.data(), out.data() + 4 * 64);
    };
    CHECK(first_query(1) == first_query(1e5f));
}

TEST_CASE("decoding codes: queries that are not finite, and scales that are NaN") {
    constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
    auto const keys = random_tensor(200, 2, 64, 1);
    auto values = random_tensor(200, 2, 64, 2);
    values(199, 0, 3) = nan_value; // the whole group's; the last query alone sees it
    ts::kv_cache<ts::key<ts::int4_g64>, ts::value<ts::int4_g64>> kv{200, 2, 64};
    ts::append(ts::reference{}, kv, keys, values);
    auto q = random_tensor(2, 4, 64, 3);
    ts::tensor<float, 3> out(2, 4, 64);
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
    for (index_t h = 0; h < 4; ++h)
        for (index_t d = 0; d < 64; ++d) {
            CHECK(std::isfinite(out(0, h, d)));
            CHECK(std::isnan(out(1, h, d)) == (h < 2));
        }
    q(0, 3, 5) = nan_value;
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
    for (index_t d = 0; d < 64; ++d) {
        CHECK(std::isnan(out(0, 3, d)));
        CHECK(std::isfinite(out(0, 2, d)));
        CHECK(std::isfinite(out(1, 3, d)));
    }
}
