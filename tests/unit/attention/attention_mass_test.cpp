// SPDX-License-Identifier: MIT
// The attention that keys receive.

#include "attention_support.hpp"

#include <tessera/attention/attention_mass.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

} // namespace

TEST_CASE("attention_mass: what all queries give a key") {
    auto const check = [](index_t queries, index_t keys, index_t group) {
        auto const q = random_tensor(queries, 2 * group, 20, 1), k = random_tensor(keys, 2, 20, 2);
        ts::kv_view const kv{k.view(), k.view()};
        ts::tensor<float, 3> out(queries, 2 * group, 20);
        ts::matrix<float> lse(2 * group, queries), expected(2, keys), mass(2, keys);
        for (index_t i = 0; i < mass.size(); ++i) expected.data()[i] = mass.data()[i] = 1.0f; // it is added to
        ts::attention(native{}, q, kv, out, ts::window{50}, lse);
        ts::attention_mass(ts::reference{}, q, kv, lse, ts::window{50}, expected);
        ts::attention_mass(native{}, q, kv, lse, ts::window{50}, mass);
        // A weight's error is that of its score, of the subtraction and of the exponential (attention_support.hpp); the
        // log-sum-exp is the same number for both. Then come a sum over queries, one more addition, and the definition's rounding.
        constexpr double u = ts::unit_roundoff<float>;
        double const scale = 1 / std::sqrt(20.0);
        double total = 0, total_allowed = 0;
        for (index_t t = 0; t < keys; ++t)
            for (index_t g = 0; g < 2; ++g) {
                double sum = 0, error = 0;
                for (index_t i = 0; i < queries; ++i)
                    for (index_t h = g * group; h < (g + 1) * group; ++h) {
                        double dot = 0, size = 0;
                        for (index_t d = 0; d < 20; ++d) {
                            dot += double{q(i, h, d)} * k(t, g, d);
                            size += std::fabs(double{q(i, h, d)} * k(t, g, d));
                        }
                        if (ts::window{50}(0.0, ts::coord<double>{keys - queries + i, t, 0.0, 0.0, h}) != 0.0) continue;
                        double const x = scale * dot - lse(h, i);
                        sum += std::exp(x);
                        error += std::exp(x) * std::expm1(ts::gamma(22, u) * scale * size + 2 * u * std::fabs(x) + 4 * u);
                    }
                double const allowed = error + ts::gamma(queries * group, u) * (sum + error) + 2 * u * (1 + sum + error);
                CHECK(std::fabs(double{mass(g, t)} - double{expected(g, t)}) <= allowed);
                total += mass(g, t) - 1.0;
                total_allowed += allowed;
            }
        // Every query that sees a key gives 1, to the error of its log-sum-exp; those before the first key see nothing.
        for (index_t i = 0; i < queries; ++i)
            for (index_t h = 0; h < 2 * group; ++h)
                total_allowed += std::expm1(bound_of(q.view(), kv, i, h, ts::window{50}).log_sum_exp);
        CHECK(std::fabs(total - static_cast<double>(std::min(queries, keys) * 2 * group)) <= total_allowed);
    };
    check(1, 100, 4);
    check(37, 1100, 3);
    check(70, 20, 1);
}

TEST_CASE("attention_with_mass: decoding keeps its scores; what is hidden is not read, a NaN stays one") {
    auto const check = [](auto const& kv, index_t queries, auto const& score, bool same_bits) {
        index_t const heads = 6, n = kv.tokens();
        auto const q = random_tensor(queries, heads, 24, 9);
        ts::tensor<float, 3> a(queries, heads, 24), b(queries, heads, 24);
        ts::matrix<float> lse(heads, queries), other(heads, queries), expected(2, n), mass(2, n);
        std::fill_n(expected.data(), 2 * n, 0.25f);
        std::fill_n(mass.data(), 2 * n, 0.25f);
        ts::attention(native{}, q, kv, a, score, lse);
        ts::attention_mass(native{}, q, kv, lse, score, expected);
        ts::attention_with_mass(native{}, q, kv, b, score, other, mass);
        CHECK(equal_bits(a, b));
        CHECK(std::equal(lse.data(), lse.data() + lse.size(), other.data()));
        for (index_t g = 0; g < 2; ++g)
            for (index_t t = 0; t < n; ++t) {
                // Scales of int8 keys come before the sum or after it: one score may be off by the roundings of a product of 24.
                double size = 0;
                for (index_t d = 0; d < 24; ++d) size += std::fabs(8.0 * kv.view().keys(g, t, d)); // |q| < 4, twice the scores' error
                double const allowed = same_bits ? 0 : std::expm1(ts::gamma(28, ts::unit_roundoff<float>) * size) * 3.0 * static_cast<double>(queries);
                CHECK(std::fabs(double{mass(g, t)} - double{expected(g, t)}) <= allowed);
            }
    };
    ts::kv_cache<ts::key<float>, ts::value<float>> floats{1300, 2, 24};
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<float>, ts::ring> bytes{70, 2, 24};
    for (index_t const n : {60, 1220}) {
        auto const k = random_tensor(n, 2, 24, 1), v = random_tensor(n, 2, 24, 2);
        ts::append(native{}, floats, k, v);
        ts::append(native{}, bytes, k, v);
    }
    for (index_t const queries : {1, 3, 40}) {
        check(floats, queries, ts::window{100}, true);
        check(bytes, queries, ts::window{100}, false);
    }
    // Keys that no query sees may be NaN; those that one sees are NaN in the definition, too.
    auto k = random_tensor(200, 1, 8, 1);
    auto const q = random_tensor(2, 1, 8, 2);
    for (index_t t = 0; t < 100; ++t) k(t, 0, 3) = std::numeric_limits<float>::quiet_NaN();
    ts::kv_view const kv{k.view(), k.view()};
    ts::tensor<float, 3> out(2, 1, 8);
    for (index_t const window : {90, 101}) {
        ts::matrix<float> lse(1, 2), mass(1, 200), expected(1, 200);
        std::fill_n(mass.data(), 200, 0.0f);
        std::fill_n(expected.data(), 200, 0.0f);
        ts::attention_with_mass(native{}, q, kv, out, ts::window{window}, lse, mass);
        ts::attention_mass(ts::reference{}, q, kv, lse, ts::window{window}, expected);
        for (index_t t = 0; t < 200; ++t) CHECK(std::isnan(mass(0, t)) == std::isnan(expected(0, t)));
        CHECK(std::isnan(mass(0, 150)) == (window == 101));
        CHECK(mass(0, 50) == 0.0f);
    }
    ts::matrix<float> lse(1, 2), narrow(1, 199);
    CHECK_THROWS_WITH_AS(ts::attention_with_mass(native{}, q, kv, out, ts::window{9}, lse, narrow),
                         "tessera: attention_with_mass: columns of mass is 199, expected 200 (tokens of the cache)", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::attention(native{}, q, kv, out, ts::window{9}, ts::matrix_view<float>{}),
                         "tessera: attention: rows of log_sum_exp is 0, expected 1 (heads of q)", ts::shape_error);
}
