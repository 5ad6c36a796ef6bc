// SPDX-License-Identifier: MIT
// convert: every CPU kernel gives the bits of the definition, for every element type, all 2^16 bfloat16 and half
// inputs, 2^20 spread over all float32 (2^24 with --no-skip), every shape around a block, strided and offset views;
// the checks at the door. Of element types of one arithmetic the first is judged on every instruction set.

#include "support/instruction_sets.hpp"

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/quant/convert.hpp>
#include <tessera/storage/tensor.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cstring>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

template <class T>
ts::vector_view<T> as_vector(std::vector<T>& v) {
    return ts::vector_view<T>{v.data(), static_cast<ts::index_t>(v.size())};
}
template <class T>
ts::vector_view<T const> as_vector(std::vector<T> const& v) {
    return ts::vector_view<T const>{v.data(), static_cast<ts::index_t>(v.size())};
}

template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

std::vector<float> all_bfloat16_and_half() {
    std::vector<float> x;
    for (std::uint32_t i = 0; i < 65536; ++i) x.push_back(std::bit_cast<float>(i << 16));
    for (std::uint32_t i = 0; i < 65536; ++i) x.push_back(ts::fp16::decode(i));
    return x;
}

/// n bit patterns spread over all, of a generator with period 2^32.
std::vector<float> spread(std::size_t n, std::uint32_t state) {
    std::vector<float> x(n);
    for (float& value : x) {
        state = state * 1664525u + 1013904223u;
        value = std::bit_cast<float>(state ^ state >> 15);
    }
    return x;
}

using every_arch = tessera_test::archs_by_width;
using one_arch = tessera_test::best_arch;

void check_same(bool same, char const* arch, char const* from, char const* to) {
    CAPTURE(std::string{arch} + ", " + from + " to " + to);
    CHECK(same);
}

template <class Y, ts::overflow Beyond, class Archs, class X>
void check_parity(std::vector<X> const& x) {
    std::vector<Y> expected(x.size());
    std::vector<Y> actual(x.size());
    ts::convert<Beyond>(ts::reference{}, as_vector(x), as_vector(expected));
    Archs::visit([&]<class Arch>(Arch) {
        std::memset(static_cast<void*>(actual.data()), 0x5a, actual.size() * sizeof(Y));
        ts::convert<Beyond>(ts::cpu<Arch, ts::serial>{}, as_vector(x), as_vector(actual));
        check_same(same_bits(expected, actual), Arch::name, ts::format_of_t<X>::name, ts::format_of_t<Y>::name);
    });
}

template <class Y, class Archs = every_arch, class X>
void check_all(std::vector<X> const& x) {
    check_parity<Y, ts::default_overflow<ts::format_of_t<Y>>, Archs>(x);
}

template <class Y, class X>
void check_overflow(std::vector<X> const& x) {
    constexpr auto beyond = ts::default_overflow<ts::format_of_t<Y>>;
    if constexpr (beyond != ts::overflow::saturate) check_parity<Y, ts::overflow::saturate, one_arch>(x);
    if constexpr (beyond != ts::overflow::nan) check_parity<Y, ts::overflow::nan, one_arch>(x);
}

/// f(element, instruction sets) of every type that an array may have.
template <class F>
void for_each_element(F const& f) {
    f(ts::fp16{}, every_arch{});
    f(ts::bf16{}, every_arch{});
    f(ts::e5m2{}, every_arch{});
    f(ts::e4m3{}, one_arch{});
    f(ts::e3m4{}, one_arch{});
    f(ts::e4m3fn{}, every_arch{});
    f(ts::e5m2fnuz{}, one_arch{});
    f(ts::e4m3fnuz{}, every_arch{});
    f(ts::e4m3b11fnuz{}, one_arch{});
    f(ts::e8m0{}, every_arch{});
    f(ts::e3m2{}, one_arch{});
    f(ts::e2m3{}, one_arch{});
    f(ts::e2m1{}, every_arch{});
    f(ts::int4{}, one_arch{});
    f(ts::uint2{}, one_arch{});
    f(std::int8_t{}, every_arch{});
    f(std::uint8_t{}, one_arch{});
}

template <class X>
std::vector<X> all_codes() {
    std::vector<X> codes;
    for (std::uint32_t c = 0; c < std::uint32_t{1} << ts::format_of_t<X>::bits; ++c)
        codes.push_back(ts::element_of<X>(c));
    return codes;
}

} // namespace

TEST_CASE("float32 to every element type") {
    auto const inputs = all_bfloat16_and_half();
    auto const random = spread(std::size_t{1} << 20, 1);
    for_each_element([&]<class Y, class Archs>(Y, Archs) {
        check_all<Y, Archs>(inputs);
        check_all<Y, Archs>(random);
        check_overflow<Y>(inputs);
    });
}

TEST_CASE("float32 to every element type, 2^24 inputs" * doctest::skip()) {
    auto const random = spread(std::size_t{1} << 24, 2);
    for_each_element([&]<class Y, class Archs>(Y, Archs) { check_all<Y, Archs>(random); });
}

TEST_CASE("every element type to float32 and to its neighbours") {
    for_each_element([]<class X, class Archs>(X, Archs) {
        auto const codes = all_codes<X>();
        check_all<float, Archs>(codes);
        if constexpr (std::is_same_v<Archs, every_arch>) {
            check_parity<ts::fp16, ts::overflow::infinity, one_arch>(codes);
            check_parity<ts::e4m3fn, ts::overflow::nan, one_arch>(codes);
        }
    });
    check_all<float>(spread(1000, 3));
}

TEST_CASE("minifloats of extreme bias go by their definition") {
    auto const random = spread(100000, 4);
    check_all<ts::minifloat<4, 3, ts::specials::ieee, 140>>(random);
    check_all<ts::minifloat<4, 3, ts::specials::finite, -112>>(random);
    check_all<float>(all_codes<ts::minifloat<4, 3, ts::specials::ieee, 140>>());
}

TEST_CASE("any shape, strided and offset, on any number of threads") {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    for (ts::index_t const m : {0, 1, 2, 7}) {
        for (ts::index_t const n : {0, 1, 15, 16, 17, 31, 33, 63, 64, 65, 129, 1000}) {
            for (ts::index_t const gap : {0, 3}) {
                for (ts::index_t const step : {1, 2}) {
                    CAPTURE(m);
                    CAPTURE(n);
                    ts::index_t const row = n * step + gap;
                    auto const source = spread(static_cast<std::size_t>(m * row + 2), 5);
                    std::vector<ts::e4m3fn> expected(source.size(), ts::e4m3fn{1.0f});
                    auto actual = expected;
                    using extents = ts::dynamic_extents<2>;
                    ts::index_t const strides[] = {row, step};
                    ts::layout_stride::mapping<extents> const mapping{extents{m, n}, strides};
                    ts::matrix_view<float const> const x{source.data() + 1, mapping};
                    ts::convert(ts::reference{}, x, ts::matrix_view<ts::e4m3fn>{expected.data() + 1, mapping});
                    ts::convert(exec, x, ts::matrix_view<ts::e4m3fn>{actual.data() + 1, mapping});
                    CHECK(same_bits(expected, actual)); // the gaps too
                }
            }
        }
    }
    auto const x = spread(300001, 6);
    std::vector<ts::bf16> one(x.size());
    std::vector<ts::bf16> many(x.size());
    ts::convert(exec, as_vector(x), as_vector(one));
    ts::convert(ts::cpu<>{}, as_vector(x), as_vector(many));
    CHECK(same_bits(one, many));
}

TEST_CASE("outputs that pass the caches by, from any address") {
    // Just beyond detail::streamed_bytes, and not a whole number of blocks; the byte before and the one after stay.
    auto const n = static_cast<std::size_t>(ts::detail::streamed_bytes / 4 + 77);
    std::vector<ts::e4m3fn> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = ts::e4m3fn::from_bits(static_cast<std::uint8_t>(i * 37 >> 3));
    std::vector<float> expected(n + 32, 5.0f);
    std::vector<float> actual(n + 32, 5.0f);
    auto const part = [&](std::vector<float>& y, ts::index_t at) {
        return ts::vector_view<float>{y.data() + at, static_cast<ts::index_t>(n)};
    };
    ts::convert(ts::reference{}, as_vector(x), part(expected, 3));
    tessera_test::archs_by_width::visit([&]<class Arch>(Arch) {
        CAPTURE(std::string{Arch::name});
        actual.assign(actual.size(), 5.0f);
        ts::convert(ts::cpu<Arch, ts::serial>{}, as_vector(x), part(actual, 3));
        CHECK(same_bits(expected, actual));
    });
    actual.assign(actual.size(), 5.0f);
    ts::convert(ts::cpu<>{}, as_vector(x), part(actual, 3));
    CHECK(same_bits(expected, actual));
}

TEST_CASE("owners, and views read backwards") {
    ts::matrix<float> x{3, 5};
    ts::matrix<ts::fp16> y{3, 5};
    for (ts::index_t i = 0; i < 3; ++i)
        for (ts::index_t j = 0; j < 5; ++j) x(i, j) = static_cast<float>(i * 5 + j);
    ts::convert(ts::cpu<>{}, x, y);
    CHECK(static_cast<float>(y(2, 4)) == 14.0f);
    using extents = ts::dynamic_extents<1>;
    ts::index_t const strides[] = {-1};
    ts::layout_stride::mapping<extents> const backwards{extents{ts::index_t{15}}, strides};
    std::vector<float> z(15);
    ts::convert(ts::cpu<>{}, ts::vector_view<float const>{x.data() + 14, backwards}, as_vector(z));
    CHECK(z[0] == 14.0f);
    CHECK(z[14] == 0.0f);
}

TEST_CASE("wrong arguments are refused, and nothing is written") {
    std::vector<float> x(8, 1.0f);
    std::vector<ts::fp16> y(8, ts::fp16{2.0f});
    ts::vector_view<float const> const in{x.data(), 8};
    CHECK_THROWS_WITH_AS(ts::convert(ts::cpu<>{}, in, ts::vector_view<ts::fp16>{y.data(), 7}),
                         "tessera: convert: columns of y is 7, expected 8 (columns of x)", ts::shape_error);
    CHECK_THROWS_AS(ts::convert(ts::cpu<>{}, in, ts::vector_view<ts::fp16>{nullptr, 8}), ts::shape_error);
    CHECK_THROWS_AS(ts::convert(ts::cpu<>{}, ts::vector_view<float const>{nullptr, 8}, as_vector(y)), ts::shape_error);
    CHECK_THROWS_AS(ts::convert(ts::cpu<>{}, in, ts::vector_view<float>{x.data() + 4, 8}), ts::shape_error);
    CHECK_THROWS_AS(ts::convert(ts::reference{}, in, ts::vector_view<float>{x.data(), 8}), ts::shape_error);
    using extents = ts::dynamic_extents<1>;
    ts::index_t const strides[] = {0};
    CHECK_THROWS_AS(
        ts::convert(ts::cpu<>{}, in, ts::vector_view<ts::fp16>{y.data(), {extents{ts::index_t{8}}, strides}}),
        ts::shape_error);
    for (ts::fp16 const h : y) CHECK(h == ts::fp16{2.0f});
    ts::convert(ts::cpu<>{}, ts::vector_view<float const>{nullptr, 0}, ts::vector_view<ts::fp16>{nullptr, 0});
}
