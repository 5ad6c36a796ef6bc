// SPDX-License-Identifier: MIT
/// @file
/// Laws of attention on a device: what is hidden, sinks, batches, errors.

#include "attention_support.cuh"

#include <tessera/attention/mask.hpp>
#include <tessera/attention/normaliser.hpp>

namespace {

using namespace attention_tests;

} // namespace

namespace {

template <class T>
void check_hidden(index_t queries, index_t dim) {
    CAPTURE(queries);
    index_t const keys = 333;
    auto const q = random_tensor<T>(queries, 4, dim, 1);
    auto k = random_tensor<T>(keys, 2, dim, 2);
    auto v = random_tensor<T>(keys, 2, dim, 3);
    auto const run = [&] {
        ts::tensor<T, 3> out(queries, 4, dim);
        ts::matrix<float> lse(4, queries);
        auto const dk = there(k);
        auto const dv = there(v);
        attend_there(q, ts::kv_view{dk.view(), dv.view()}, out, lse, ts::causal | ts::window{100});
        return out;
    };
    auto const before = run();
    // What the last query does not see, and what only later ones see.
    index_t const late = keys - ts::maximum(queries / 2, 1);
    for (index_t t : {index_t{3}, late, keys - 101})
        for (index_t d = 0; d < dim; ++d) {
            k(t, 0, d) = static_cast<T>(t == late ? 0.0f : NAN);
            v(t, 0, d) = static_cast<T>(d % 2 == 0 ? NAN : INFINITY);
        }
    auto const after = run();
    index_t same = 0;
    for (index_t i = 0; i < queries; ++i) {
        index_t const at = keys - queries + i;
        bool sees_one = false;
        for (index_t t : {index_t{3}, late, keys - 101}) sees_one = sees_one || (t <= at && at - t < 100);
        if (sees_one) continue;
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < dim; ++d) {
                ++same;
                // Values up to 4; by matrix units, tiles with NaN are multiplied without: weights are not rounded then.
                CHECK(std::fabs(static_cast<float>(after(i, h, d)) - static_cast<float>(before(i, h, d))) <= 16 * ts::unit_roundoff<T>);
            }
    }
    CHECK((queries != 200 || same > 0)); // the window of 100 hides the third from the last ones
    for (index_t i = 0; i < queries; ++i) {
        index_t const at = keys - queries + i;
        if (at >= late && at - late < 100) CHECK(std::isnan(static_cast<float>(after(i, 0, 0))));
        CHECK_FALSE(std::isnan(static_cast<float>(after(i, 2, 0))));
    }
}

} // namespace

TEST_CASE("attention: what a query does not see does not reach it, were it NaN") {
    check_hidden<float>(40, 24);
    for (index_t const queries : {1, 4, 40, 200}) {
        check_hidden<ts::bf16>(queries, 64);
        check_hidden<ts::bf16>(queries, 128);
    }
}

TEST_CASE("attention: sinks, and queries that see nothing") {
    for (index_t const queries : {3, 100}) {
        auto const q = random_tensor<ts::bf16>(queries, 2, 64, 1);
        auto const k = random_tensor<ts::bf16>(2, 1, 64, 2);
        auto const dk = there(k);
        ts::tensor<ts::bf16, 3> out(queries, 2, 64);
        ts::matrix<float> lse(2, queries);
        attend_there(q, ts::kv_view{dk.view(), dk.view()}, out, lse, ts::causal);
        for (index_t d = 0; d < 64; ++d) CHECK(static_cast<float>(out(0, 1, d)) == 0.0f);
        CHECK(lse(1, 0) == ts::minus_infinity);
        CHECK(lse(1, queries - 1) > -20.0f);
        float const logits[] = {1.5f, -2.0f};
        ts::device_vector<float> there_logits{2};
        ts::copy(device{}, ts::vector_view<float const>{logits, 2}, there_logits.view());
        attend_there(q, ts::kv_view{dk.view(), dk.view()}, out, lse,
                     ts::causal | ts::sinks{ts::vector_view<float const>{ts::kernel_view(there_logits.view())}});
        CHECK(lse(0, 0) == doctest::Approx(1.5f));
        CHECK(lse(1, 0) == doctest::Approx(-2.0f));
    }
}

/// Requests of one batch have the bits of single calls, in every run.
template <class Score>
void check_batch(char const* name, Score const& score) {
    CAPTURE(name);
    index_t const dim = 128;
    std::vector<ts::device_kv_cache<ts::key<ts::bf16>, ts::value<ts::bf16>>> caches;
    std::vector<std::int32_t> offsets{0};
    index_t const keys[] = {300, 1, 77, 1100, 640, 300};
    index_t const queries[] = {1, 1, 60, 2, 1, 1};
    for (index_t b = 0; b < 6; ++b) {
        caches.emplace_back(1200, 2, dim);
        ts::append(device{}, caches.back(), there(random_tensor<ts::bf16>(keys[b], 2, dim, 10 + b)), there(random_tensor<ts::bf16>(keys[b], 2, dim, 20 + b)));
        offsets.push_back(offsets.back() + static_cast<std::int32_t>(queries[b]));
    }
    auto const q = random_tensor<ts::bf16>(offsets.back(), 8, dim, 4);
    auto const dq = there(q);
    ts::device_tensor<ts::bf16, 3> all{q.extent(0), 8, dim};
    ts::device_tensor<ts::bf16, 3> again{q.extent(0), 8, dim};
    ts::vector_view<std::int32_t const> const at{offsets.data(), 7};
    ts::attention_batch(device{}, dq, at, caches, all, score);
    ts::attention_batch(device{}, dq, at, caches, again, score);
    ts::tensor<ts::bf16, 3> a(q.extent(0), 8, dim), b(q.extent(0), 8, dim);
    ts::copy(device{}, all.view(), a.view());
    ts::copy(device{}, again.view(), b.view());
    wait();
    CHECK(equal_bits(a, b));
    for (std::size_t r = 0; r < 6; ++r)
        ts::attention(device{}, ts::slice(dq.view(), ts::range{offsets[r], offsets[r + 1]}, ts::all, ts::all), caches[r],
                      ts::slice(again.view(), ts::range{offsets[r], offsets[r + 1]}, ts::all, ts::all), score);
    ts::copy(device{}, again.view(), b.view());
    wait();
    CHECK(equal_bits(a, b));
}

TEST_CASE("attention_batch: the bits of single calls; the same bits every time") {
    check_batch("causal", ts::causal);
    // Masks that read memory: a table of sequences for all requests, and what every query of a request may see.
    index_t const longest = 1100;
    std::vector<std::int32_t> const begins{0, 40, 70, 300, 800, static_cast<std::int32_t>(longest)};
    ts::device_vector<std::int32_t> there_begins{6};
    ts::copy(device{}, ts::vector_view<std::int32_t const>{begins.data(), 6}, there_begins.view());
    check_batch("segments", ts::causal | ts::segments{ts::vector_view<std::int32_t const>{ts::kernel_view(there_begins.view()).data_handle(), 6}});
    std::vector<std::uint8_t> seen(static_cast<std::size_t>(longest * longest));
    random_floats next{6};
    for (auto& s : seen) s = next.uniform() < 0.4f;
    ts::device_vector<std::uint8_t> there_seen{longest * longest};
    ts::copy(device{}, ts::vector_view<std::uint8_t const>{seen.data(), longest * longest}, there_seen.view());
    wait();
    auto const* const mask = ts::kernel_view(there_seen.view()).data_handle();
    check_batch("dense_mask", ts::dense_mask{ts::tensor_view<std::uint8_t const, 3>{mask, 1, longest, longest}});
}

TEST_CASE("attention_batch: more requests than a launch has") {
    index_t const dim = 128;
    index_t const n = 70;
    std::vector<ts::device_kv_cache<ts::key<ts::bf16>, ts::value<ts::bf16>>> caches;
    std::vector<std::int32_t> offsets{0};
    for (index_t b = 0; b < n; ++b) {
        caches.emplace_back(700, 2, dim);
        index_t const keys = 600 + b;
        ts::append(device{}, caches.back(), there(random_tensor<ts::bf16>(keys, 2, dim, 10 + b)), there(random_tensor<ts::bf16>(keys, 2, dim, 200 + b)));
        offsets.push_back(static_cast<std::int32_t>(b + 1));
    }
    auto const dq = there(random_tensor<ts::bf16>(n, 8, dim, 4));
    ts::device_tensor<ts::bf16, 3> all{n, 8, dim};
    ts::device_tensor<ts::bf16, 3> one{n, 8, dim};
    ts::attention_batch(device{}, dq, ts::vector_view<std::int32_t const>{offsets.data(), n + 1}, caches, all, ts::causal);
    for (index_t r = 0; r < n; ++r)
        ts::attention(device{}, ts::slice(dq.view(), ts::range{r, r + 1}, ts::all, ts::all), caches[static_cast<std::size_t>(r)],
                      ts::slice(one.view(), ts::range{r, r + 1}, ts::all, ts::all), ts::causal);
    ts::tensor<ts::bf16, 3> a(n, 8, dim), b(n, 8, dim);
    ts::copy(device{}, all.view(), a.view());
    ts::copy(device{}, one.view(), b.view());
    wait();
    CHECK(equal_bits(a, b));
}

TEST_CASE("attention: memory of the host is refused") {
    auto q = random_tensor<ts::bf16>(4, 2, 64, 1);
    auto const dq = there(q);
    ts::device_view<ts::bf16, 3> const host{q.data(), dq.view().mapping(), ts::device_accessor<ts::bf16>{}};
    CHECK_THROWS_AS(ts::attention(device{}, dq, dq, dq, host, ts::full), ts::shape_error);
}
