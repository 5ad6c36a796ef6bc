// SPDX-License-Identifier: MIT
// Products by bit planes: the counts are the integer products exactly, the operator is the definition, integers become planes
// without loss.

#include <doctest/doctest.h>

#include "cases/guarded.hpp"
#include "support/instruction_sets.hpp"

#include <tessera/numerics/error_bounds.hpp>
#include <tessera/operators/describe.hpp>
#include <tessera/quant/bit_planes.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/storage/ternary.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace tessera_test;

namespace {

using exec_type = ts::cpu<ts::native_arch, ts::serial>;

template <int Bits>
ts::bit_plane_tensor<Bits> random_planes(index_t n, index_t k, ts::plane_offsets offsets, std::uint64_t seed) {
    ts::bit_plane_tensor<Bits> w{n, k, offsets};
    ts::philox const random{seed};
    for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < k; ++j) w.set(i, j, random.bits(static_cast<std::uint64_t>(i * k + j)) & ((1u << Bits) - 1u));
        w.scales()[i] = 0.25f * static_cast<float>(i % 5 + 1);
        if (offsets == ts::plane_offsets::rows) w.offsets()[i] = 0.5f - static_cast<float>(i % 3);
    }
    return w;
}

/// The counts of two rows of codes are those of their values, in the xor form and in the and form.
template <class Arch, int XBits, int Bits>
void counts_are_exact(index_t k) {
    CAPTURE(std::string{Arch::name});
    CAPTURE(k);
    auto const x = random_planes<XBits>(1, k, ts::plane_offsets::none, 3);
    auto const w = random_planes<Bits>(2, k, ts::plane_offsets::none, 4);
    std::uint64_t const* const rows[2] = {w.view().row(0), w.view().row(1)};
    std::int64_t totals[2];
    ts::detail::count_planes<Arch, XBits, Bits, 2>(x.view().row(0), rows, ts::ceil_div(k, index_t{512}), totals);
    for (index_t r = 0; r < 2; ++r) {
        std::int64_t dot = 0;
        std::int64_t and_form = 0;
        for (index_t j = 0; j < k; ++j) {
            std::uint32_t const a = x.view().code(0, j);
            std::uint32_t const b = w.view().code(r, j);
            dot += ts::bipolar<XBits>::integer(a) * ts::bipolar<Bits>::integer(b);
            for (int i = 0; i < XBits; ++i)
                for (int l = 0; l < Bits; ++l) {
                    int const p = static_cast<int>(a >> i & 1u);
                    int const q = static_cast<int>(b >> l & 1u);
                    and_form += (4 * (p & q) - 2 * p - 2 * q + 1) * (1 << (i + l));
                }
        }
        CHECK(dot == and_form);
        CHECK(k * ((1 << XBits) - 1) * ((1 << Bits) - 1) - 2 * totals[r] == dot);
    }
}

/// y of the operator on `Arch` is the definition's, canonical and placed, for strided x and y; a row is itself in any batch.
template <class Arch, int XBits, int Bits>
void check_product(index_t m, index_t n, index_t k, ts::plane_offsets offsets) {
    CAPTURE(std::string{Arch::name});
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    auto const w = random_planes<Bits>(n, k, offsets, 5);
    ts::linear const op{w, ts::bipolar_per_token<XBits>{}};
    guarded<float> x{m, k, 1, 1 + m % 2};
    x.fill(7);
    guarded<float> y{m, n, 2, 2};
    guarded<float> again{m, n, 0};
    guarded<float> expected{m, n};
    ts::cpu<Arch, ts::serial> const exec;
    ts::apply(exec, op, x.view(), y.view());
    ts::apply(ts::reference{}, op, x.view(), expected.view());
    CHECK(y.is_intact());
    std::vector<double> row(static_cast<std::size_t>(k));
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(k));
    for (index_t i = 0; i < m; ++i) {
        for (index_t j = 0; j < k; ++j) row[static_cast<std::size_t>(j)] = double{x.view()(i, j)};
        double const scale = double{ts::detail::reference_bipolar<XBits>(row.data(), k, codes.data())};
        double sum = 0;
        for (std::uint8_t const c : codes) sum += ts::bipolar<XBits>::integer(c);
        for (index_t j = 0; j < n; ++j) {
            double dot = 0;
            for (index_t l = 0; l < k; ++l)
                dot += ts::bipolar<XBits>::integer(codes[static_cast<std::size_t>(l)]) * ts::bipolar<Bits>::integer(w.view().code(j, l));
            double const magnitude = scale * (std::abs(double{w.view().scale(j)} * dot) + std::abs(double{w.view().offset(j)} * sum));
            CHECK(std::abs(double{y.view()(i, j)} - double{expected.view()(i, j)}) <= ts::gamma(7, 0x1p-24) * magnitude);
        }
    }
    auto const placed = ts::place(exec, op);
    ts::apply(exec, placed, x.view(), again.view());
    CHECK(same_bits(y, again));
    ts::workspace_scope scope{exec.scratch()};
    auto const shared = ts::prepare(exec, scope, ts::rows(x.view(), m / 2, m), ts::bipolar_per_token<XBits>{});
    ts::apply(exec, op, shared, ts::rows(again.view(), 0, m - m / 2));
    CHECK(same_bits<float>(ts::rows(std::as_const(y).view(), m / 2, m), ts::rows(std::as_const(again).view(), 0, m - m / 2)));
}

} // namespace

TEST_CASE("counts of differing bits are the integer products") {
    for (index_t const k : {1, 63, 64, 65, 511, 512, 513, 1030}) {
        all_archs::visit([&]<class Arch>(Arch) { counts_are_exact<Arch, 2, 3>(k); });
        best_arch::visit([&]<class Arch>(Arch) {
            counts_are_exact<Arch, 1, 1>(k);
            counts_are_exact<Arch, 4, 4>(k);
            counts_are_exact<Arch, 8, 1>(k);
            counts_are_exact<Arch, 8, 8>(k);
        });
    }
}

TEST_CASE("products of integers x are exact") {
    // The scale of a row with largest magnitude 15 is 1 in 4 bits: y is the integer product, below 2^24.
    auto const w = random_planes<3>(5, 700, ts::plane_offsets::none, 6);
    ts::matrix<float> x{2, 700};
    for (index_t i = 0; i < 1400; ++i) x.view()(i / 700, i % 700) = static_cast<float>(2 * ((i * 7 + 3) % 16) - 15);
    ts::matrix<float> y{2, 5};
    ts::apply(exec_type{}, ts::linear{w, ts::bipolar_per_token<4>{}}, x, y);
    for (index_t i = 0; i < 2; ++i)
        for (index_t j = 0; j < 5; ++j) {
            std::int64_t dot = 0;
            for (index_t k = 0; k < 700; ++k) dot += static_cast<int>(x.view()(i, k)) * ts::bipolar<3>::integer(w.view().code(j, k));
            CHECK(y.view()(i, j) == w.view().scale(j) * static_cast<float>(dot));
        }
}

TEST_CASE("the operator is the definition") {
    for (auto const offsets : {ts::plane_offsets::none, ts::plane_offsets::rows})
        for (auto const [m, n, k] : {std::array<index_t, 3>{1, 1, 1}, {2, 3, 64}, {3, 5, 130}, {5, 33, 513}, {1, 4, 0}, {0, 3, 9}, {33, 2, 600}}) {
            all_archs::visit([&]<class Arch>(Arch) { check_product<Arch, 4, 2>(m, n, k, offsets); });
            check_product<ts::native_arch, 1, 1>(m, n, k, offsets);
            check_product<ts::native_arch, 8, 5>(m, n, k, offsets);
        }
}

TEST_CASE("bipolar weights and row-scaled integers become planes without loss") {
    guarded<float> w{6, 77};
    w.fill(11);
    auto const same = [&](auto const& q) {
        auto const planes = ts::pack_bit_planes(q);
        for (index_t n = 0; n < 6; ++n)
            for (index_t k = 0; k < 77; ++k) {
                // scale / 2 v and the offset: each of magnitude 2^bits scales at most, rounded three times.
                double const scale = double{q.view().scale(n, k)};
                double const tolerance = planes.view().has_offsets() ? ts::gamma(3, 0x1p-24) * scale * (1 << q.view().bits) : 0;
                CHECK(std::abs(double{planes.view()(n, k)} - double{q.view()(n, k)}) <= tolerance);
            }
    };
    auto const source = std::as_const(w).view();
    same(ts::quantize<ts::scheme<ts::bipolar<2>, ts::per_channel>>(source));
    same(ts::quantize<ts::scheme<ts::int1, ts::per_tensor>>(source));
    same(ts::quantize<ts::scheme<ts::int4, ts::per_channel>>(source));
    same(ts::quantize<ts::scheme<ts::uint3, ts::per_channel, ts::fp32, ts::affine>>(source));
    same(ts::quantize<ts::scheme<ts::ternary, ts::per_channel>>(source));
}

TEST_CASE("decoded, transposed, in sums") {
    auto const w = random_planes<3>(9, 70, ts::plane_offsets::rows, 8);
    ts::matrix<float> dense{9, 70};
    for (index_t n = 0; n < 9; ++n)
        for (index_t k = 0; k < 70; ++k) dense.view()(n, k) = w.view()(n, k);
    guarded<float> x{2, 70};
    guarded<float> dy{2, 9};
    x.fill(1);
    dy.fill(2);
    guarded<float> y{2, 9}, expected{2, 9}, dx{2, 70}, expected_dx{2, 70};
    ts::apply(exec_type{}, ts::linear{w}, x.view(), y.view());
    ts::apply(ts::reference{}, ts::linear{dense}, x.view(), expected.view());
    for (index_t i = 0; i < 2; ++i)
        for (index_t n = 0; n < 9; ++n) {
            double sum = 0;
            for (index_t k = 0; k < 70; ++k)
                sum += std::abs(double{x.view()(i, k)}) * (7 * double{w.view().scale(n)} + std::abs(double{w.view().offset(n)}));
            CHECK(std::abs(double{y.view()(i, n)} - double{expected.view()(i, n)}) <= ts::gamma(80, 0x1p-24) * sum);
        }
    ts::linear const op{w, ts::bipolar_per_token<4>{}};
    ts::apply(exec_type{}, ts::transposed(op), dy.view(), dx.view());
    ts::apply(exec_type{}, ts::transposed(ts::linear{dense}), dy.view(), expected_dx.view());
    CHECK(same_bits(dx, expected_dx));
    // A sum with another operator.
    guarded<float> both{2, 9}, one{2, 9}, two{2, 9};
    ts::apply(exec_type{}, op + ts::linear{dense}, x.view(), both.view());
    ts::apply(exec_type{}, op, x.view(), one.view());
    ts::apply(exec_type{}, ts::linear{dense}, x.view(), two.view());
    for (index_t n = 0; n < 9; ++n)
        CHECK(both.view()(1, n) == one.view()(1, n) + two.view()(1, n));
    CHECK(ts::describe(exec_type{}, op, 1).find("4 by 3 bit planes") != std::string::npos);
}

TEST_CASE("rows of zeros and rows that are not finite; gathered rows") {
    auto const w = random_planes<2>(3, 20, ts::plane_offsets::rows, 9);
    ts::linear const op{w, ts::bipolar_per_token<3>{}};
    guarded<float> x{4, 20};
    x.fill(3);
    for (index_t k = 0; k < 20; ++k) {
        x.view()(0, k) = 0;
        x.view()(3, k) = 1e-38f; // no inverse in float32
    }
    x.view()(1, 11) = std::numeric_limits<float>::infinity();
    x.view()(2, 5) = -0.0f;
    x.view()(2, 6) = 0.0f;
    guarded<float> y{4, 3};
    auto const check = [&](auto const& exec) {
        ts::apply(exec, op, x.view(), y.view());
        CHECK(y.view()(0, 2) == 0.0f);
        CHECK(std::isnan(y.view()(1, 0)));
        CHECK(std::isfinite(y.view()(2, 0)));
        CHECK(std::isfinite(y.view()(3, 0)));
    };
    check(exec_type{});
    check(ts::reference{});

    exec_type const exec;
    using form = ts::bit_plane_rows<3>;
    using gather = ts::kernel<ts::op::gather, exec_type, form>;
    ts::workspace_scope scope{exec.scratch()};
    auto const prepared = ts::prepare(exec, scope, ts::matrix_view<float const>{std::as_const(x).view()}, op);
    form const& from = prepared.inputs.get<form>();
    std::vector<double> row;
    std::vector<std::uint8_t> codes(20);
    for (index_t k = 0; k < 20; ++k) row.push_back(double{x.view()(2, k)});
    ts::detail::reference_bipolar<3>(row.data(), 20, codes.data());
    std::int64_t sum = 0;
    for (std::uint8_t const c : codes) sum += ts::bipolar<3>::integer(c);
    CHECK(from.sums[2] == sum);
    form const to = gather::plan(from, 2, scope);
    index_t const rows[2] = {2, 0};
    gather::run(exec, from, rows, to);
    for (index_t i = 0; i < 2; ++i) {
        CHECK(to.scales[i] == from.scales[rows[i]]);
        CHECK(to.sums[i] == from.sums[rows[i]]);
        for (index_t j = 0; j < form::row_words_of(20); ++j) CHECK(to.row(i)[j] == from.row(rows[i])[j]);
    }
}
