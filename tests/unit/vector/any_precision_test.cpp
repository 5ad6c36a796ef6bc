// SPDX-License-Identifier: MIT
// Nested codes in bit planes: prefixes are models, the invariants of the encoder, the authors' packing, bad input.

#include "vector_support.hpp"

#include <tessera/quant/any_precision.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

using namespace tessera_test;

namespace {

template <int Bits>
struct nested_storage {
    ts::any_precision_tensor owner;
    nested_storage(index_t n, index_t k) : owner{ts::quantize_any_precision(normal_matrix(n, k))} {}
    auto view() const { return owner.prefix<Bits>(); }
};

/// Sum of weighted squares of the errors of a width, by row.
template <class Q>
double weighted_error(Q const& q, ts::matrix<float> const& w, ts::matrix<float> const& s, index_t n) {
    double sum = 0;
    for (index_t k = 0; k < w.extent(1); ++k) sum += double{s(n, k)} * std::pow(double{w(n, k)} - double{q(n, k)}, 2);
    return sum;
}

} // namespace

TEST_CASE("products with 3 of 8 planes, and with all") {
    check_vector_law<nested_storage<3>>();
    check_vector_law<nested_storage<8>>();
}

TEST_CASE("codes nest, tables ascend, errors fall") {
    index_t const n = 5;
    index_t const k = 900;
    ts::matrix<float> const w = normal_matrix(n, k);
    ts::matrix<float> s{n, k};
    for (index_t i = 0; i < n * k; ++i) s.data()[i] = ts::philox{9}.uniform(static_cast<std::uint64_t>(i)) + 0.01f;
    auto const q = ts::quantize_any_precision(w.view(), s.view());
    CHECK(q.bytes() == n * (8 * 113 + 504 * 2));
    std::array<double, 9> error{};
    for (int b = 3; b <= 8; ++b)
        q.visit_prefix(b, [&](auto const& p) {
            CHECK(p.code_bits == b);
            bool nests = true;
            bool ascends = true;
            for (index_t i = 0; i < n; ++i) {
                for (index_t j = 0; j < k; ++j) nests = nests && p.code(i, j) == q.prefix<8>().code(i, j) >> (8 - b);
                for (std::uint32_t c = 1; c < p.table_size; ++c) ascends = ascends && p.table_value(i, 0, c - 1, 0) <= p.table_value(i, 0, c, 0);
                error[static_cast<std::size_t>(b)] += weighted_error(p, w, s, i);
            }
            CHECK(nests);
            CHECK(ascends);
        });
    for (std::size_t b = 4; b <= 8; ++b) CHECK(error[b] < error[b - 1]);
    // A bit divides the error of many numbers by four, and that of 900, among 256 values, by more.
    CHECK(error[8] <= error[3] / 1024);
    // The weighted mean of two children is their parent: they divide it (fp16 rounds each of the three).
    auto const p3 = q.prefix<3>();
    auto const p4 = q.prefix<4>();
    for (index_t i = 0; i < n; ++i) {
        std::array<double, 16> weight{};
        for (index_t j = 0; j < k; ++j) weight[p4.code(i, j)] += double{s(i, j)};
        for (std::size_t c = 0; c < 8; ++c) {
            double const low = double{p4.table_value(i, 0, static_cast<std::uint32_t>(2 * c), 0)};
            double const high = double{p4.table_value(i, 0, static_cast<std::uint32_t>(2 * c + 1), 0)};
            double const mean = (weight[2 * c] * low + weight[2 * c + 1] * high) / (weight[2 * c] + weight[2 * c + 1]);
            double const parent = double{p3.table_value(i, 0, static_cast<std::uint32_t>(c), 0)};
            CHECK(std::abs(mean - parent) <= 0x1p-11 * (std::fmax(std::abs(low), std::abs(high)) + std::abs(parent)) * (1 + 0x1p-10)); // of means before they were rounded
        }
    }
}

TEST_CASE("the seed is near the optimum of a Gaussian, and the cut is the best") {
    ts::matrix<float> const w = normal_matrix(1, 1 << 15);
    auto const q = ts::quantize_any_precision(w);
    CHECK(std::abs(mean_squared_error(q.prefix<3>(), w) / 0.034547761 - 1) < .03);
    // Splitting is not far from the optimum of its width (Lloyd-Max: .0095).
    CHECK(mean_squared_error(q.prefix<4>(), w) < 1.15 * 0.009501008);
    float const values[] = {0, 1, 2, 10, 11, 30};
    ts::detail::sorted_samples const s{values, nullptr, 6};
    CHECK(s.best_cut(0, 6) == 5);
    CHECK(s.best_cut(0, 5) == 3);
    float const equal[] = {4, 4, 4};
    CHECK(ts::detail::sorted_samples{equal, nullptr, 3}.best_cut(0, 3) == 3);
}

TEST_CASE("the authors' packing") {
    // The place of a few columns by their rule, 2080 columns: two tiles of 1024 and a rest of 4 bytes with one thread.
    CHECK(ts::any_precision_word(0, 2080).word == 0);
    CHECK(ts::any_precision_word(0, 2080).bit == 31);
    CHECK(ts::any_precision_word(9, 2080).word == 1);
    CHECK(ts::any_precision_word(9, 2080).bit == 30);
    CHECK(ts::any_precision_word(256, 2080).word == 0);
    CHECK(ts::any_precision_word(256, 2080).bit == 23);
    CHECK(ts::any_precision_word(1023, 2080).word == 31);
    CHECK(ts::any_precision_word(1023, 2080).bit == 0);
    CHECK(ts::any_precision_word(2048, 2080).word == 64);
    CHECK(ts::any_precision_word(2048, 2080).bit == 31);
    CHECK(ts::any_precision_word(2079, 2080).bit == 0);
    index_t const k = 1120;
    auto const q = ts::quantize_any_precision(normal_matrix(2, k), {2, 5});
    std::vector<std::uint32_t> words(static_cast<std::size_t>(5 * 2 * k / 32), 0);
    for (index_t p = 0; p < 5; ++p)
        for (index_t n = 0; n < 2; ++n)
            for (index_t j = 0; j < k; ++j) {
                auto const at = ts::any_precision_word(j, k);
                words[static_cast<std::size_t>((p * 2 + n) * (k / 32) + at.word)] |= (q.prefix<5>().code(n, j) >> (4 - p) & 1u) << at.bit;
            }
    ts::any_precision_tensor back{2, k, 2, 5};
    ts::read_any_precision_planes(words, back);
    bool same = true;
    for (index_t n = 0; n < 2; ++n)
        for (index_t j = 0; j < k; ++j) same = same && back.prefix<5>().code(n, j) == q.prefix<5>().code(n, j);
    CHECK(same);
    CHECK_THROWS_AS(ts::read_any_precision_planes({words.data(), 7}, back), ts::shape_error);
}

TEST_CASE("bad input") {
    ts::matrix<float> w = normal_matrix(4, 40);
    w(1, 5) = std::numeric_limits<float>::infinity();
    for (index_t k = 0; k < 40; ++k) {
        w(2, k) = 0.0f;
        w(3, k) = 1e30f; // beyond fp16
    }
    ts::matrix<float> const none{4, 40}; // importance 0 throughout counts as even
    auto const q = ts::quantize_any_precision(w.view(), none.view());
    auto const even = ts::quantize_any_precision(w);
    for (index_t k = 0; k < 40; ++k) {
        CHECK(std::isfinite(q.prefix<4>()(0, k)));
        CHECK(q.prefix<4>()(0, k) == even.prefix<4>()(0, k));
        CHECK(std::isnan(q.prefix<4>()(1, k)));
        CHECK(q.prefix<8>()(2, k) == 0.0f);
        CHECK(q.prefix<8>()(3, k) == 65504.0f);
    }
    // One number, none, fewer than clusters.
    auto const one = ts::quantize_any_precision(normal_matrix(1, 1));
    CHECK(one.prefix<3>()(0, 0) == static_cast<float>(ts::fp16{normal_matrix(1, 1)(0, 0)}));
    CHECK(ts::quantize_any_precision(ts::matrix<float>{3, 0}).cols() == 0);
    CHECK_THROWS_AS(static_cast<void>(one.prefix<2>()), ts::shape_error);
    CHECK_THROWS_AS(one.visit_prefix(9, [](auto const&) {}), ts::shape_error);
    CHECK_THROWS_AS(ts::quantize_any_precision(w, {5, 4}), ts::shape_error);
    ts::matrix<float> negative{4, 40};
    negative(1, 1) = -1;
    CHECK_THROWS_AS(ts::quantize_any_precision(w.view(), negative.view()), ts::shape_error);
}
