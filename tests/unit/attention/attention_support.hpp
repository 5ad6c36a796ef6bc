// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the attention tests share: random inputs and the computed error bound.

#include <tessera/attention/attention.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/storage/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace attention_tests {

namespace ts = tessera;
using ts::index_t;

struct random_floats {
    std::uint64_t state = 1;
    float uniform() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<float>(state >> 40) * 0x1p-24f;
    }
    /// About normal, variance 1.
    float operator()() { return (uniform() + uniform() + uniform() + uniform() - 2.0f) * 1.7320508f; }
};

template <class T = float>
ts::tensor<T, 3> random_tensor(index_t a, index_t b, index_t c, std::uint64_t seed) {
    ts::tensor<T, 3> t(a, b, c);
    random_floats next{seed};
    for (index_t i = 0; i < t.size(); ++i) t.data()[i] = static_cast<T>(next());
    return t;
}

/// The bounds of attention.hpp against the definition in double, for one query and head.
///
/// A score is off by e = (gamma(d + 12) + 2^-22) a, where a is the largest scale sum |q k| plus what the functors add
/// (`added`): d products, the scale, the functors' few operations, and the argument of the exponential, which is at most
/// 2 a. Weights are then off by a factor e^(2 e) and by the exponential's own 2^-22, sums by gamma(keys).
struct bound {
    double out = 0;
    double log_sum_exp = 0;
};

template <class Key, class Value>
bound bound_of(ts::tensor_view<float const, 3> const& q, ts::kv_view<Key, Value> const& kv, index_t i, index_t h,
               double scale, double added = 0) {
    double const u = ts::unit_roundoff<float>;
    index_t const head = h / (q.extent(1) / kv.kv_heads);
    double largest = 0;
    double largest_value = 0;
    for (index_t t = 0; t < kv.tokens; ++t) {
        double sum = 0;
        for (index_t d = 0; d < kv.key_dim; ++d) sum += std::fabs(double{q(i, h, d)} * kv.keys(head, kv.slot(t), d));
        largest = std::max(largest, sum * scale + added);
        for (index_t d = 0; d < kv.value_dim; ++d)
            largest_value = std::max(largest_value, std::fabs(double{kv.values(head, kv.slot(t), d)}));
    }
    double const e = (ts::gamma(kv.key_dim + 12, u) + 4 * u) * largest;
    double const sums = std::expm1(2 * e) + ts::gamma(kv.tokens + 24, u);
    return {2 * sums * largest_value, e + sums + 4 * u * largest};
}

/// Every element of out and log_sum_exp within its bound of the expected one; true where all are.
template <class Key, class Value, class Out>
bool agrees(ts::tensor_view<float const, 3> q, ts::kv_view<Key, Value> const& kv, ts::tensor_view<Out const, 3> out,
            ts::tensor_view<float const, 3> expected, ts::matrix_view<float const> lse,
            ts::matrix_view<float const> expected_lse, double scale, double added = 0) {
    for (index_t i = 0; i < q.extent(0); ++i)
        for (index_t h = 0; h < q.extent(1); ++h) {
            bound const b = bound_of(q, kv, i, h, scale, added);
            for (index_t d = 0; d < out.extent(2); ++d) {
                double const e = expected(i, h, d);
                double const rounding = (ts::unit_roundoff<Out> + 0x1p-24) * std::fabs(e) + 0x1p-25;
                if (!(std::fabs(double{static_cast<float>(out(i, h, d))} - e) <= b.out + rounding)) return false;
            }
            double const l = expected_lse(h, i);
            if (std::isinf(l) ? lse(h, i) != expected_lse(h, i)
                              : !(std::fabs(double{lse(h, i)} - l) <= b.log_sum_exp + 0x1p-22 * std::fabs(l)))
                return false;
        }
    return true;
}

template <class T>
bool equal_bits(ts::tensor<T, 3> const& a, ts::tensor<T, 3> const& b) {
    return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size(),
                      [](T x, T y) { return std::memcmp(&x, &y, sizeof x) == 0; });
}

template <class Arch>
using serial_cpu = ts::cpu<Arch, ts::serial>;

/// f(policy) for every instruction set that this program was compiled for.
template <class F>
void for_each_arch(F const& f) {
    using native = ts::native_arch;
    f(serial_cpu<native>{});
    if constexpr (std::is_base_of_v<ts::avx2, native> && !std::is_same_v<ts::avx2, native>) f(serial_cpu<ts::avx2>{});
    if constexpr (std::is_base_of_v<ts::sse2, native> && !std::is_same_v<ts::sse2, native>) f(serial_cpu<ts::sse2>{});
}

} // namespace attention_tests
