// SPDX-License-Identifier: MIT
// The KV cache: what append writes, what is counted, where tokens are, and what is refused.

#include "support/message_of.hpp"

#include <tessera/attention/append.hpp>
#include <tessera/attention/attention.hpp>
#include <tessera/storage/kv_cache.hpp>
#include <tessera/storage/tensor.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

namespace {

namespace ts = tessera;
using ts::index_t;

/// Element (t, h, d) is t + h / 8 + d / 64, plus an offset.
ts::tensor<float, 3> numbered(index_t first, index_t tokens, index_t heads, index_t dim, float offset = 0) {
    ts::tensor<float, 3> x(tokens, heads, dim);
    for (index_t t = 0; t < tokens; ++t)
        for (index_t h = 0; h < heads; ++h)
            for (index_t d = 0; d < dim; ++d)
                x(t, h, d) = offset + static_cast<float>(first + t) + static_cast<float>(h) / 8 + static_cast<float>(d) / 64;
    return x;
}

using tessera_test::message_of;

/// Token t of the view has position first_position + t, and that is what was appended there.
template <class Cache>
bool holds_numbers(Cache const& kv, float tolerance) {
    auto const v = kv.view();
    for (index_t t = 0; t < v.tokens; ++t)
        for (index_t h = 0; h < v.kv_heads; ++h)
            for (index_t d = 0; d < v.key_dim; ++d) {
                float const expected = static_cast<float>(v.first_position + t) + static_cast<float>(h) / 8 + static_cast<float>(d) / 64;
                if (std::fabs(v.keys(h, v.slot(t), d) - expected) > tolerance * std::fabs(expected)) return false;
            }
    return true;
}

} // namespace

TEST_CASE("kv_cache: contiguous tokens stay where they are, and no more than the capacity fit") {
    ts::kv_cache<ts::key<float>, ts::value<ts::fp16>> kv{10, 2, 5, 3};
    CHECK(kv.bytes() == 10 * 2 * (5 * 4 + 3 * 2));
    ts::append(ts::cpu<>{}, kv, numbered(0, 4, 2, 5), numbered(0, 4, 2, 3));
    ts::append(ts::cpu<>{}, kv, numbered(4, 3, 2, 5), numbered(4, 3, 2, 3));
    CHECK(kv.tokens() == 7);
    CHECK(kv.first_position() == 0);
    CHECK(holds_numbers(kv, 0.0f));
    CHECK(message_of([&] { ts::append(ts::cpu<>{}, kv, numbered(7, 4, 2, 5), numbered(7, 4, 2, 3)); }) ==
          "tessera: append: tokens of k is 4, expected 0 to 3");
    CHECK(kv.tokens() == 7);
    kv.truncate(5);
    ts::append(ts::cpu<>{}, kv, numbered(5, 5, 2, 5), numbered(5, 5, 2, 3));
    CHECK(kv.tokens() == 10);
    CHECK(holds_numbers(kv, 0.0f));
    CHECK(message_of([&] { kv.truncate(11); }) == "tessera: truncate: tokens is 11, expected 0 to 10");
    kv.clear();
    CHECK(kv.tokens() == 0);
    static_assert(std::is_trivially_copyable_v<decltype(kv.view())>);
}

TEST_CASE("kv_cache: a ring keeps the last tokens and their positions") {
    ts::kv_cache<ts::key<float>, ts::value<float>, ts::ring> kv{6, 1, 4};
    index_t position = 0;
    for (index_t const n : {4, 1, 3, 0, 6, 13, 2}) {
        ts::append(ts::cpu<>{}, kv, numbered(position, n, 1, 4), numbered(position, n, 1, 4));
        position += n;
        CHECK(kv.tokens() == ts::minimum(position, 6));
        CHECK(kv.end_position() == position);
        CHECK(holds_numbers(kv, 0.0f));
    }
    kv.truncate(4);
    CHECK(kv.end_position() == position - 2);
    CHECK(holds_numbers(kv, 0.0f));
    ts::append(ts::cpu<>{}, kv, numbered(position - 2, 1, 1, 4), numbered(position - 2, 1, 1, 4));
    CHECK(kv.tokens() == 5);
    CHECK(holds_numbers(kv, 0.0f));
}

TEST_CASE("kv_cache: int8 is off by at most half a step; zero, NaN and infinity are as the card says") {
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>> kv{8, 2, 33};
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>> same{8, 2, 33};
    auto x = numbered(1, 8, 2, 33, -4.0f);
    for (index_t d = 0; d < 33; ++d) x(3, 0, d) = 0.0f;
    x(4, 0, 7) = std::numeric_limits<float>::quiet_NaN();
    x(5, 1, 32) = -std::numeric_limits<float>::infinity();
    ts::append(ts::reference{}, kv, x, x);
    ts::append(ts::cpu<>{}, same, x, x);
    auto const v = kv.view();
    auto const w = same.view();
    for (index_t t = 0; t < 8; ++t)
        for (index_t h = 0; h < 2; ++h) {
            bool const bad = (t == 4 && h == 0) || (t == 5 && h == 1);
            float const scale = *v.keys.scale_row(h, t);
            CHECK(std::memcmp(v.keys.row(h, t), w.keys.row(h, t), 33) == 0);
            CHECK(std::memcmp(v.values.row(h, t), w.keys.row(h, t), 33) == 0);
            CHECK((std::isnan(*w.keys.scale_row(h, t)) ? bad : *w.keys.scale_row(h, t) == scale));
            for (index_t d = 0; d < 33; ++d) {
                float const y = v.keys(h, t, d);
                if (bad)
                    CHECK(std::isnan(y));
                else
                    CHECK(std::fabs(y - x(t, h, d)) <= 0.5f * scale * (1 + 0x1p-20f) + 127 * scale * 0x1p-22f);
            }
        }
    CHECK(v.keys(0, 3, 0) == 0.0f);
    ts::tensor<float, 3> golden(1, 1, 4);
    float const numbers[] = {.5f, -1.27f, 1, 0};
    std::copy_n(numbers, 4, golden.data());
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>> by_hand{1, 1, 4};
    ts::append(ts::reference{}, by_hand, golden, golden);
    int const codes[] = {50, -127, 100, 0};
    for (index_t d = 0; d < 4; ++d) CHECK(by_hand.view().keys.row(0, 0)[d] == codes[d]);
    CHECK(*by_hand.view().keys.scale_row(0, 0) == 1.27f / 127);
}

TEST_CASE("kv_cache: bad calls are refused") {
    ts::kv_cache<ts::key<ts::bf16>, ts::value<ts::bf16>> kv{4, 2, 8};
    auto const k = numbered(0, 2, 2, 8);
    CHECK(message_of([&] { ts::append(ts::cpu<>{}, kv, numbered(0, 2, 3, 8), k); }) ==
          "tessera: append: heads of k is 3, expected 2 (heads of the cache)");
    CHECK(message_of([&] { ts::append(ts::cpu<>{}, kv, k, numbered(0, 1, 2, 8)); }) ==
          "tessera: append: tokens of v is 1, expected 2 (tokens of k)");
    CHECK(message_of([&] { ts::append(ts::cpu<>{}, kv, k, numbered(0, 2, 2, 7)); }) ==
          "tessera: append: head_dim of v is 7, expected 8 (value_dim of the cache)");
    CHECK(message_of([] { ts::kv_cache<ts::key<float>, ts::value<float>> bad{-1, 1, 1}; }).find("capacity is -1") !=
          std::string::npos);
    CHECK(message_of([] { ts::kv_cache<ts::key<float>, ts::value<float>> bad{index_t{1} << 40, 1 << 20, 1 << 20}; }) ==
          "tessera: kv_cache: capacity is 1099511627776, expected 0 to 256");
    CHECK(kv.tokens() == 0);
}

TEST_CASE_TEMPLATE("kv_cache: a move leaves an empty cache, which refuses tokens and queries", Layout, ts::contiguous, ts::ring) {
    using cache = ts::kv_cache<ts::key<float>, ts::value<ts::int8_per_token>, Layout>;
    static_assert(std::is_nothrow_move_constructible_v<cache> && std::is_nothrow_move_assignable_v<cache>);
    ts::cpu<> const exec;
    auto const x = numbered(0, 3, 2, 8);
    ts::tensor<float, 3> out(3, 2, 8);
    cache a{5, 2, 8};
    ts::append(exec, a, x, x);
    cache b{std::move(a)};
    auto const is_empty = [&](cache& kv) {
        CHECK(kv.tokens() == 0);
        CHECK(kv.capacity() == 0);
        CHECK(kv.kv_heads() == 0);
        CHECK(kv.key_dim() == 0);
        CHECK(kv.value_dim() == 0);
        CHECK(kv.end_position() == 0);
        CHECK(kv.bytes() == 0);
        CHECK(message_of([&] { ts::append(exec, kv, x, x); }) ==
              "tessera: append: heads of k is 2, expected 0 (heads of the cache)");
        CHECK(message_of([&] { ts::attention(exec, x, kv, out); }) ==
              "tessera: attention: head_dim of q is 8, expected 0 (head_dim of the keys)");
    };
    is_empty(a);
    CHECK(b.tokens() == 3);
    CHECK(holds_numbers(b, 0.0f));
    cache c{1, 1, 1};
    c = std::move(b);
    is_empty(b);
    auto& self = c;
    c = std::move(self);
    ts::append(exec, c, numbered(3, 2, 2, 8), numbered(3, 2, 2, 8));
    CHECK(c.tokens() == 5);
    CHECK(holds_numbers(c, 0.0f));
}
