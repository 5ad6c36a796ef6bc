// SPDX-License-Identifier: MIT
/// @file
/// Conversions on a device give the bits of the definition (tests/unit/quant/convert_test.cpp has those of processors).

#include "cuda_support.hpp"

#include <tessera/quant/convert.cuh>

#include <bit>
#include <cstring>

namespace {

using namespace tessera_test;

/// All bf16 and fp16 values, and bit patterns spread over all float32.
std::vector<float> inputs() {
    std::vector<float> x;
    for (std::uint32_t i = 0; i < 65536; ++i) x.push_back(std::bit_cast<float>(i << 16));
    for (std::uint32_t i = 0; i < 65536; ++i) x.push_back(ts::fp16::decode(i));
    std::uint32_t state = 1;
    for (int i = 0; i < 1 << 18; ++i) {
        state = state * 1664525u + 1013904223u;
        x.push_back(std::bit_cast<float>(state ^ state >> 15));
    }
    return x;
}

template <class Y, ts::overflow Beyond, class X>
void check_parity(std::vector<X> const& x) {
    CAPTURE(std::string{ts::format_of_t<X>::name} + " to " + ts::format_of_t<Y>::name);
    auto const n = static_cast<index_t>(x.size());
    ts::vector<Y> expected(n), actual(n);
    ts::vector_view<X const> const from{x.data(), n};
    ts::convert<Beyond>(ts::reference{}, from, expected);
    ts::device_vector<X> there{n};
    ts::device_vector<Y> to{n};
    ts::copy(device{}, from, there.view());
    ts::convert<Beyond>(device{}, there, to);
    ts::copy(device{}, std::as_const(to).view(), actual.view());
    wait();
    CHECK(std::memcmp(expected.data(), actual.data(), static_cast<std::size_t>(n) * sizeof(Y)) == 0);
}
template <class Y, class X>
void check_all(std::vector<X> const& x) {
    constexpr auto beyond = ts::default_overflow<ts::format_of_t<Y>>;
    check_parity<Y, beyond>(x);
    if constexpr (beyond != ts::overflow::saturate) check_parity<Y, ts::overflow::saturate>(x);
}
template <class X>
std::vector<X> all_codes() {
    std::vector<X> codes;
    for (std::uint32_t c = 0; c < std::uint32_t{1} << ts::format_of_t<X>::bits; ++c) codes.push_back(ts::element_of<X>(c));
    return codes;
}

TEST_CASE("float32 to other types, and back") {
    auto const x = inputs();
    check_all<ts::fp16>(x);
    check_all<ts::bf16>(x);
    check_all<ts::e4m3fn>(x);
    check_all<ts::e5m2>(x);
    check_all<ts::e2m1>(x);
    check_all<ts::e8m0>(x);
    check_all<std::int8_t>(x);
    check_all<float>(all_codes<ts::fp16>());
    check_all<float>(all_codes<ts::bf16>());
    check_all<float>(all_codes<ts::e4m3fn>());
    check_all<float>(all_codes<ts::e5m2>());
    check_all<ts::bf16>(all_codes<ts::e4m3fn>());
    check_all<ts::e4m3fn>(all_codes<ts::bf16>());
    check_all<ts::e4m3fn>(all_codes<ts::fp16>());
    check_all<ts::fp16>(all_codes<ts::bf16>());
}

TEST_CASE("rows of any shape and stride; errors") {
    for (index_t const n : {1, 7, 8, 40, 1000})
        for (index_t const gap : {0, 3, 8}) {
            guarded<float> x{5, n, gap, 1 + gap % 2};
            guarded<ts::bf16> y{5, n, gap};
            guarded<ts::bf16> expected{5, n, gap};
            x.fill(3);
            y.clear();
            on_device<float const> const dx{std::as_const(x).view()};
            on_device<ts::bf16> const dy{y.view()};
            ts::convert(device{}, dx.view(), dy.view());
            wait();
            dy.fetch();
            CHECK(y.is_intact());
            ts::convert(ts::reference{}, std::as_const(x).view(), expected.view());
            for (index_t m = 0; m < 5; ++m)
                for (index_t k = 0; k < n; ++k) CHECK(y.view()(m, k) == expected.view()(m, k));
        }
    ts::device_matrix<float> x{2, 3};
    ts::device_matrix<ts::bf16> y{2, 4};
    CHECK_THROWS_WITH_AS(ts::convert(device{}, x, y), "tessera: convert: columns of y is 4, expected 3 (columns of x)", ts::shape_error);
}

} // namespace
