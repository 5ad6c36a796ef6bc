// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The processors' cases of attention on a device.

#include "cases/attention_case.hpp"
#include "cuda_support.hpp"

#include <tessera/attention/attention.cuh>

namespace attention_tests {

using tessera_test::device;
using tessera_test::wait;

template <class T>
ts::device_tensor<T, 3> there(ts::tensor<T, 3> const& x) {
    ts::device_tensor<T, 3> y{x.extent(0), x.extent(1), x.extent(2)};
    ts::copy(device{}, x.view(), y.view());
    wait();
    return y;
}

template <class T>
bool same_rows(T const* here, T const* on_device, index_t n) {
    std::vector<T> copy(static_cast<std::size_t>(n) + 1);
    REQUIRE(cudaMemcpy(copy.data(), on_device, static_cast<std::size_t>(n) * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return n == 0 || std::memcmp(copy.data(), here, static_cast<std::size_t>(n) * sizeof(T)) == 0;
}

/// out and log-sum-exp of the device, poisoned before.
template <class Q, class O, class KV, class Score>
void attend_there(ts::tensor<Q, 3> const& q, KV const& kv, ts::tensor<O, 3>& out, ts::matrix<float>& lse, Score const& score) {
    for (index_t i = 0; i < out.size(); ++i) out.data()[i] = static_cast<O>(77.0f);
    for (index_t i = 0; i < lse.size(); ++i) lse.data()[i] = 77.0f;
    auto const dq = there(q);
    auto dout = there(out);
    ts::device_matrix<float> dlse{lse.extent(0), lse.extent(1)};
    ts::copy(device{}, std::as_const(lse).view(), dlse.view());
    ts::attention(device{}, dq, kv, dout, score, dlse);
    ts::copy(device{}, dout.view(), out.view());
    ts::copy(device{}, dlse.view(), lse.view());
    wait();
}

/// A case of the processors: q in T, a cache of a format that the device appends to; `there_score` is `score` with memory of the device.
template <class Format, class T = float, class Layout = ts::contiguous, class Score>
void check_scores_of(tally& ratios, shape const& s, Score const& score, Score const& there_score, index_t functor_roundings = 0,
                     bound_terms terms = {}, index_t capacity = 0) {
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.heads);
    CAPTURE(s.key_dim);
    index_t const room = capacity != 0 ? capacity : s.keys;
    ts::kv_cache<ts::key<Format>, ts::value<Format>, Layout> kv{room, s.kv_heads, s.key_dim, s.value_dim};
    ts::device_kv_cache<ts::key<Format>, ts::value<Format>, Layout> device_kv{room, s.kv_heads, s.key_dim, s.value_dim};
    auto const k = random_tensor<T>(s.keys, s.kv_heads, s.key_dim, 1);
    auto const v = random_tensor<T>(s.keys, s.kv_heads, s.value_dim, 2);
    ts::append(ts::reference{}, kv, k, v);
    ts::append(device{}, device_kv, there(k), there(v));
    wait();
    index_t const used = kv.is_ring ? room * s.kv_heads * s.key_dim : 0;
    CHECK(same_rows(kv.key_rows().data, device_kv.key_rows().data, used));
    auto const q = random_tensor<T>(s.queries, s.heads, s.key_dim, 3);
    ts::tensor<float, 3> wide(s.queries, s.heads, s.key_dim);
    for (index_t i = 0; i < q.size(); ++i) wide.data()[i] = static_cast<float>(q.data()[i]);
    ts::tensor<float, 3> expected(s.queries, s.heads, s.value_dim);
    ts::matrix<float> expected_lse(s.heads, s.queries);
    ts::attention(ts::reference{}, wide, kv, expected, score, expected_lse);
    ts::tensor<T, 3> out(s.queries, s.heads, s.value_dim);
    ts::matrix<float> lse(s.heads, s.queries);
    attend_there(q, device_kv, out, lse, there_score);
    terms.part_tokens = ts::detail::attention_part_keys(s.keys);
    double const ratio = worst_ratio<T>(std::as_const(wide).view(), kv.view(), std::as_const(out).view(), std::as_const(expected).view(),
                                        std::as_const(lse).view(), std::as_const(expected_lse).view(), score, functor_roundings, terms);
    CHECK(ratios(ratio));
}

template <class Format, class T = float, class Layout = ts::contiguous, class Score>
void check_shape(tally& ratios, shape const& s, Score const& score, index_t functor_roundings = 0, bound_terms terms = {}, index_t capacity = 0) {
    check_scores_of<Format, T, Layout>(ratios, s, score, score, functor_roundings, terms, capacity);
}

/// A weight rounded to T; exponentials of powers of two; four warps' states.
template <class T>
bound_terms matrix_terms() {
    return {ts::unit_roundoff<T>, std::is_same_v<T, ts::fp16> ? 0x1p-25 : 0x1p-126, 3, 1024, 2};
}

} // namespace attention_tests
