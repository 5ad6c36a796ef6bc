// SPDX-License-Identifier: MIT
#include "nn_support.hpp"

#include <tessera/nn/rope.hpp>

#include <utility>

using namespace nn_test;

namespace {

template <class T>
void fill(ts::tensor<T, 3>& x, std::uint64_t seed) {
    for (index_t i = 0; i < x.size(); ++i)
        x.data()[i] = element<T>(double{ts::philox{seed}.normal(static_cast<std::uint64_t>(i))});
}

/// |a cos| + |b sin| of the pair that an element belongs to, at most; 0 for those beyond the pairs.
template <class Style, class T>
double size_of_pair(Style, ts::tensor<T, 3> const& x, ts::rope_table const& table, index_t t, index_t h, index_t i) {
    for (index_t p = 0; p < table.pairs(); ++p) {
        index_t const first = Style::first(p, table.pairs());
        index_t const second = Style::second(p, table.pairs());
        if (i == first || i == second)
            return std::abs(static_cast<double>(x(t, h, first))) + std::abs(static_cast<double>(x(t, h, second)));
    }
    return 0;
}

template <class Style, class X, class Y>
void parity(index_t tokens, index_t heads, index_t head_dim, index_t dims) {
    CAPTURE(Style::name);
    CAPTURE(tokens);
    CAPTURE(heads);
    CAPTURE(head_dim);
    CAPTURE(dims);
    ts::rope_table const table(64, dims);
    ts::tensor<X, 3> x(tokens, heads, head_dim);
    fill(x, 3);
    ts::tensor<float, 3> expected(tokens, heads, head_dim);
    ts::tensor<Y, 3> wide(tokens, heads + 1, head_dim + 3); // y is a part of it
    auto const y = ts::slice(wide.view(), ts::all, ts::range{0, heads}, ts::range{2, head_dim + 2});
    ts::rope(ts::reference{}, Style{}, x, table, 11, expected);
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        ts::rope(exec, Style{}, x, table, 11, y);
        for (index_t t = 0; t < tokens; ++t)
            check_close(ts::matrix_view<Y>(ts::slice(y, t, ts::all, ts::all)),
                        [&](index_t h, index_t i) { return expected(t, h, i); },
                        [&](index_t h, index_t i) {
                            double const e = static_cast<double>(expected(t, h, i));
                            double const pair = size_of_pair(Style{}, x, table, t, h, i);
                            return 2 * u * pair + storing<Y>(e) + storing<float>(e);
                        });
    });
}

} // namespace

TEST_CASE("rope agrees with the reference: both styles, any head dimension, partial rotation, strides, element types") {
    auto const all = [](auto style) {
        using style_type = decltype(style);
        for (index_t const dims : {0, 2, 6, 8, 16, 30, 32, 34, 64, 126})
            for (index_t const rest : {0, 1, 5}) parity<style_type, float, float>(3, 2, dims + rest, dims);
        parity<style_type, float, float>(0, 2, 16, 16);
        parity<style_type, float, float>(2, 0, 16, 16);
        parity<style_type, float, float>(40, 9, 64, 64);
        parity<style_type, ts::bf16, ts::bf16>(3, 2, 35, 34);
        parity<style_type, ts::fp16, float>(3, 2, 20, 16);
        parity<style_type, float, ts::fp16>(3, 1, 64, 64);
    };
    all(ts::rope_interleaved{});
    all(ts::rope_halves{});
}

TEST_CASE("rope is a rotation: lengths stay, scores depend on the distance only, position 0 changes nothing") {
    auto const laws = [](auto style) {
        for_each_cpu([&](auto const& exec) {
            ts::rope_table const table(200, 32);
            ts::tensor<float, 3> x(2, 1, 32);
            fill(x, 1);
            ts::tensor<float, 3> y(2, 1, 32);
            auto const score = [&](index_t p, index_t q) {
                index_t const positions[] = {p, q};
                ts::rope(exec, style, x, table, ts::vector_view<index_t const>{positions, 2}, y);
                double sum = 0;
                for (index_t i = 0; i < 32; ++i) sum += double{y(0, 0, i)} * double{y(1, 0, i)};
                return sum;
            };
            double size = 0;
            for (index_t i = 0; i < 32; ++i) size += std::pow(double{x(0, 0, i)}, 2) + std::pow(double{x(1, 0, i)}, 2);
            // Each turned element is within (2 + 1 + 1) u |pair| (arithmetic, cosine, sine, storing).
            double const allowed = 2 * 4 * u * size;
            CHECK(std::abs(score(7, 3) - score(104, 100)) <= 2 * allowed);
            CHECK(std::abs(score(150, 150) - score(0, 0)) <= 2 * allowed);
            ts::rope(exec, style, x, table, 0, y);
            for (index_t i = 0; i < 32; ++i) CHECK(y(0, 0, i) == x(0, 0, i));
        });
    };
    laws(ts::rope_interleaved{});
    laws(ts::rope_halves{});
}

TEST_CASE("the styles are permutations of each other") {
    ts::rope_table const table(50, 24);
    ts::tensor<float, 3> halves(4, 3, 24);
    fill(halves, 8);
    ts::tensor<float, 3> interleaved(4, 3, 24);
    auto const place = [](index_t i) { return i % 2 == 0 ? i / 2 : 12 + i / 2; };
    for (index_t t = 0; t < 4; ++t)
        for (index_t h = 0; h < 3; ++h)
            for (index_t i = 0; i < 24; ++i) interleaved(t, h, i) = halves(t, h, place(i));
    ts::rope(ts::reference{}, ts::rope_halves{}, halves, table, 9, halves);
    ts::rope(ts::reference{}, ts::rope_interleaved{}, interleaved, table, 9, interleaved);
    for (index_t t = 0; t < 4; ++t)
        for (index_t h = 0; h < 3; ++h)
            for (index_t i = 0; i < 24; ++i) CHECK(interleaved(t, h, i) == halves(t, h, place(i)));
}

TEST_CASE("rope in place, positions as an array, frequencies as an array") {
    for_each_cpu([&](auto const& exec) {
        ts::rope_table const table(100, 16, 500000.0);
        std::vector<double> frequencies;
        for (int i = 0; i < 8; ++i) frequencies.push_back(std::pow(500000.0, -2.0 * i / 16));
        ts::rope_table const same(100, ts::vector_view<double const>{frequencies.data(), 8});
        ts::tensor<float, 3> x(5, 2, 17);
        fill(x, 5);
        ts::tensor<float, 3> y(5, 2, 17);
        ts::rope(exec, ts::rope_interleaved{}, x, table, 40, y);
        index_t const positions[] = {40, 41, 42, 43, 44};
        ts::rope(exec, ts::rope_interleaved{}, x, same, ts::vector_view<index_t const>{positions, 5}, x);
        for (index_t i = 0; i < x.size(); ++i) CHECK(x.data()[i] == y.data()[i]);
    });
}

TEST_CASE("rope refuses wrong arguments with a sentence") {
    ts::cpu<> const exec;
    ts::rope_table const table(10, 8);
    ts::tensor<float, 3> x(4, 2, 8);
    ts::tensor<float, 3> y(4, 2, 8);
    ts::tensor<float, 3> narrow(4, 2, 6);
    auto const rope = [&](auto const& from, index_t first, auto& to) {
        return message_of([&] { ts::rope(exec, ts::rope_halves{}, from, table, first, to); });
    };
    CHECK(rope(x, 7, y) == "tessera: rope: last position plus one is 11, expected 0 to 10");
    CHECK(rope(x, -1, y) == "tessera: rope: first position is -1, expected 0 to 10");
    CHECK(rope(x, 0, narrow) == "tessera: rope: head dimension of y is 6, expected 8 (head dimension of x)");
    CHECK(rope(narrow, 0, narrow) == "tessera: rope: dims of the table is 8, expected 0 to 6");
    index_t const positions[] = {0, 3, 10, 2};
    CHECK(message_of([&] {
              ts::rope(exec, ts::rope_halves{}, x, table, ts::vector_view<index_t const>{positions, 4}, y);
          }) == "tessera: rope: position is 10, expected 0 to 9");
    CHECK(message_of([] { ts::rope_table(10, 7); }) == "tessera: rope_table: dims is 7, expected a multiple of 2");
    CHECK_THROWS_AS(ts::rope_table(10, 8, 0.0), ts::shape_error);
    CHECK_THROWS_AS(ts::rope_table(-1, 8), ts::shape_error);
    ts::rope_table first(10, 8);
    ts::rope_table second{std::move(first)};
    CHECK(first.positions() == 0);
    CHECK(message_of([&] { ts::rope(exec, ts::rope_halves{}, x, first, 0, y); }) ==
          "tessera: rope: last position plus one is 4, expected 0 to 0");
    first = std::move(second);
    CHECK(first.positions() == 10);
    CHECK(message_of([&] { ts::rope(exec, ts::rope_halves{}, x, second, 0, y); }) ==
          "tessera: rope: last position plus one is 4, expected 0 to 0");
    for (index_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == 0);
}

TEST_CASE("rope with the inverse table is the gradient of rope, and undoes it") {
    auto const check = [](auto style, auto const& exec) {
        for (index_t const dims : {0, 2, 30, 64}) {
            CAPTURE(dims);
            index_t const dim = dims + 3;
            ts::rope_table const table(50, dims);
            ts::rope_table const inverse = table.inverse();
            ts::tensor<float, 3> x(4, 2, dim), dy(4, 2, dim), y(4, 2, dim), dx(4, 2, dim), back(4, 2, dim);
            fill(x, 1);
            fill(dy, 2);
            ts::rope(exec, style, x, table, 40, y);
            ts::rope(exec, style, dy, inverse, 40, dx);
            ts::rope(exec, style, y, inverse, 40, back);
            // rope is linear: that dx is its gradient says dy . rope(x) = dx . x. Every element is off by at most
            // 2 u (|a| + |b|), and the angle's cosine and sine are rounded.
            double left = 0;
            double right = 0;
            double bound = 0;
            for (index_t t = 0; t < 4; ++t)
                for (index_t h = 0; h < 2; ++h)
                    for (index_t i = 0; i < dim; ++i) {
                        double const size_x = size_of_pair(style, x, table, t, h, i);
                        double const size_dy = size_of_pair(style, dy, table, t, h, i);
                        left += double{dy(t, h, i)} * double{y(t, h, i)};
                        right += double{dx(t, h, i)} * double{x(t, h, i)};
                        bound += 2 * u * (size_x * std::abs(double{dy(t, h, i)}) + size_dy * std::abs(double{x(t, h, i)}));
                        // Both turns, and cos^2 + sin^2 of rounded numbers.
                        CHECK(std::abs(double{back(t, h, i)} - double{x(t, h, i)}) <= 8 * u * size_x);
                    }
            CHECK(std::abs(left - right) <= bound);
        }
    };
    check(ts::rope_halves{}, ts::reference{});
    check(ts::rope_interleaved{}, ts::reference{});
    for_each_cpu([&](auto const& exec) {
        check(ts::rope_halves{}, exec);
        check(ts::rope_interleaved{}, exec);
    });
}
