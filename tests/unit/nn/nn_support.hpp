// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the tests of nn/ share: the policies of this build, arrays with guarded gaps between their rows, and tolerances.

#include "support/instruction_sets.hpp"
#include "support/message_of.hpp"

#include <doctest/doctest.h>

#include <tessera/core/exec.hpp>
#include <tessera/core/philox.hpp>
#include <tessera/core/slice.hpp>
#include <tessera/core/view.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/numerics/half.hpp>
#include <tessera/simd/arch_map.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

namespace nn_test {

namespace ts = tessera;
using ts::index_t;

inline constexpr double u = ts::unit_roundoff<float>;

inline double gamma_of(index_t k) { return ts::gamma(k, u); }

/// Calls f(policy) for the instruction sets of `Archs`: on threads with the best, on one thread with the lesser ones.
template <class Archs = tessera_test::archs_by_width, class F>
void for_each_cpu(F const& f) {
    using ts::native_arch;
    Archs::visit([&]<class Arch>(Arch) {
        f(std::conditional_t<std::is_same_v<Arch, native_arch>, ts::cpu<Arch>, ts::cpu<Arch, ts::serial>>{});
    });
}

template <class Exec>
char const* name_of(Exec const&) {
    return Exec::arch_type::name;
}

struct shape {
    index_t m;
    index_t n;
};

/// Around the lanes of every architecture (4, 8, 16) and of four accumulators of them, and the empty ones.
inline std::vector<shape> shapes() {
    return {{0, 5}, {3, 0}, {1, 1}, {2, 3}, {3, 4}, {2, 7}, {1, 8}, {1, 15}, {2, 16}, {3, 17}, {5, 31}, {1, 63}, {2, 64},
            {3, 65}, {2, 130}, {1, 577}, {17, 1031}};
}

template <class T>
T element(double v) {
    return static_cast<T>(static_cast<float>(v));
}

/// A matrix whose rows lie `gap` elements apart, after `gap` elements; everything outside the rows keeps a pattern.
template <class T>
class guarded {
public:
    guarded(index_t m, index_t n, index_t gap)
        : m_{m}, n_{n}, gap_{gap}, data_(static_cast<std::size_t>((m + 1) * (n + gap) + 1), pattern()) {}

    ts::matrix_view<T> view() {
        index_t const strides[] = {n_ + gap_, 1};
        return {data_.data() + gap_, typename ts::matrix_view<T>::mapping_type{ts::dynamic_extents<2>{m_, n_}, strides}};
    }
    ts::matrix_view<T const> view() const { return const_cast<guarded*>(this)->view(); }

    void fill(std::uint64_t seed, double scale = 1, double shift = 0) {
        ts::philox const random{seed};
        for (index_t i = 0; i < m_; ++i)
            for (index_t k = 0; k < n_; ++k)
                view()(i, k) = element<T>(
                    scale * static_cast<double>(random.normal(static_cast<std::uint64_t>(i * n_ + k))) + shift);
    }

    /// No element outside the rows was written.
    bool is_intact() const {
        bool result = true;
        for (index_t at = 0; at < static_cast<index_t>(data_.size()); ++at) {
            index_t const from_first = at - gap_;
            index_t const step = ts::maximum(n_ + gap_, 1);
            bool const is_element = from_first >= 0 && from_first / step < m_ && from_first % step < n_;
            result = result && (is_element || data_[static_cast<std::size_t>(at)] == pattern());
        }
        return result;
    }

private:
    static T pattern() { return element<T>(-123.0); }

    index_t m_;
    index_t n_;
    index_t gap_;
    std::vector<T> data_;
};

/// Half an ulp of storing y as T.
template <class T>
double storing(double y) {
    double const tiniest = std::is_same_v<T, ts::fp16> ? 0x1p-25 : std::is_same_v<T, ts::bf16> ? 0x1p-134 : 0x1p-150;
    return 1.001 * ts::unit_roundoff<T> * std::abs(y) + tiniest;
}

/// |actual - expected| <= tolerance, or both NaN, or the same infinity.
inline bool agrees(double actual, double expected, double tolerance) {
    if (std::isnan(expected) || std::isnan(actual)) return std::isnan(expected) && std::isnan(actual);
    if (std::isinf(expected) || std::isinf(actual)) return actual == expected;
    return std::abs(actual - expected) <= tolerance;
}

/// Checks every element of y; tolerance(i, k) in double.
template <class Y, class Expected, class Tolerance>
void check_close(ts::matrix_view<Y> y, Expected const& expected, Tolerance const& tolerance) {
    for (index_t i = 0; i < y.extent(0); ++i)
        for (index_t k = 0; k < y.extent(1); ++k) {
            double const actual = static_cast<double>(y(i, k));
            double const wanted = static_cast<double>(expected(i, k));
            double const allowed = tolerance(i, k);
            if (agrees(actual, wanted, allowed)) continue;
            CAPTURE(i);
            CAPTURE(k);
            CAPTURE(actual);
            CAPTURE(wanted);
            CAPTURE(allowed);
            CHECK(agrees(actual, wanted, allowed));
            return;
        }
}

using tessera_test::message_of;

} // namespace nn_test
