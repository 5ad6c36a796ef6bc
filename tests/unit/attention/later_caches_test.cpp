// SPDX-License-Identifier: MIT
// What reads keys for their mass, with caches whose headers come after its own: keys that are turned when they are read, and keys
// behind a buffer.

#include <tessera/attention/attention_mass.hpp>
#include <tessera/attention/heavy_hitters.hpp>

#include "attention_support.hpp"

#include <tessera/attention/gear.hpp>
#include <tessera/attention/rotary_cache.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

/// The masses of a cache against those by the definition.
template <class Cache>
void check_mass(Cache const& kv, index_t queries) {
    auto const v = kv.view();
    auto const q = random_tensor(queries, 2 * v.kv_heads, v.key_dim, 7);
    ts::tensor<float, 3> out(queries, 2 * v.kv_heads, v.value_dim), with(queries, 2 * v.kv_heads, v.value_dim);
    ts::matrix<float> lse(2 * v.kv_heads, queries), other(2 * v.kv_heads, queries);
    ts::matrix<float> expected(v.kv_heads, v.tokens), mass(v.kv_heads, v.tokens), both(v.kv_heads, v.tokens);
    for (auto* m : {&expected, &mass, &both}) std::fill_n(m->data(), m->size(), 0.0f);
    ts::attention(native{}, q, kv, out, ts::causal, lse);
    ts::attention_mass(ts::reference{}, q, kv, lse, ts::causal, expected);
    ts::attention_mass(native{}, q, kv, lse, ts::causal, mass);
    ts::attention_with_mass(native{}, q, kv, with, ts::causal, other, both);
    CHECK(equal_bits(out, with));
    // Scores below 16 in magnitude, of 32 products; sums over queries of weights of at most 1.
    double const allowed = static_cast<double>(2 * queries) * (32 * 16 + 64) * ts::unit_roundoff<float>;
    for (index_t i = 0; i < mass.size(); ++i) {
        CHECK(std::fabs(double{mass.data()[i]} - double{expected.data()[i]}) <= allowed);
        CHECK(std::fabs(double{both.data()[i]} - double{expected.data()[i]}) <= allowed);
    }
}

} // namespace

TEST_CASE("the mass of keys that are turned when they are read") {
    ts::rope_table const table{64, 32};
    ts::rotary_kv_cache kv{ts::kv_cache<ts::key<ts::fp16>, ts::value<ts::fp16>>{64, 2, 32}, ts::rope_halves{}, table};
    ts::append(native{}, kv, random_tensor(50, 2, 32, 1), random_tensor(50, 2, 32, 2));
    check_mass(kv, 1);
    check_mass(kv, 9);
    ts::heavy_hitters keeper{2, 64, 4, 4};
    auto const q = random_tensor(1, 4, 32, 3);
    ts::tensor<float, 3> out(1, 4, 32), expected(1, 4, 32);
    keeper.attend(native{}, q, kv, out, ts::causal);
    ts::attention(native{}, q, kv, expected, ts::causal);
    CHECK(equal_bits(out, expected));
    CHECK(keeper.tokens() == 50);
}

TEST_CASE("the mass of keys behind a buffer") {
    ts::gear_kv_cache<4> kv{128, 2, 32};
    ts::append(native{}, kv, random_tensor(100, 2, 32, 1), random_tensor(100, 2, 32, 2));
    check_mass(kv, 1);
    check_mass(kv, 9);
}
