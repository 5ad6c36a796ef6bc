// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The law of every stored matrix: `apply` on every instruction set, of the canonical and of the placed form, over shapes
/// around lanes and groups and strided x and y, is the reference's result; placing changes no bit; and with an int8
/// preparation neither does what else is in the batch.

#include <doctest/doctest.h>

#include "cases/apply_case.hpp"
#include "support/instruction_sets.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/storage/quantized.hpp>

#include <string>
#include <vector>

namespace tessera_test {

/// Calls f(arch) for the instruction sets that this build's flags allow.
template <class F>
void for_each_arch(F const& f) {
    all_archs::visit(f);
}

/// Random codes (of finite values), scales and zero points.
template <class Scheme>
ts::quantized_tensor<Scheme> random_quantized(index_t n, index_t k, std::uint64_t seed = 3) {
    using format = typename Scheme::format;
    using scale_type = typename ts::quantized<Scheme>::scale_type;
    ts::quantized_tensor<Scheme> q{n, k};
    ts::philox const random{seed};
    auto const view = q.view();
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) {
            auto const at = static_cast<std::uint64_t>(i * k + j);
            std::uint32_t const code = format::is_integer
                                           ? random.bits(at) & ((1u << format::bits) - 1u)
                                           : format::encode(0.16f * format::max_magnitude * random.normal(at));
            ts::bitpack::set<format::bits>(q.codes() + i * view.row_bytes(), j, code);
        }
    for (index_t i = 0; i < view.scale_rows() * view.scale_columns(); ++i) {
        auto const at = static_cast<std::uint64_t>(i);
        q.scales()[i] = static_cast<scale_type>((random.bits(at) % 2 ? 1.0f : -1.0f) * (0.01f + random.uniform(at + 1000)));
        if constexpr (Scheme::is_affine)
            q.zero_points()[i] = static_cast<std::uint8_t>(random.bits(at + 7) & ((1u << format::bits) - 1u));
    }
    return q;
}

/// Owner of random storage: what a law takes as its template argument.
template <class Scheme>
struct scheme_storage {
    static constexpr index_t group = Scheme::granularity_type::columns;
    static constexpr index_t column_unit = 1;
    ts::quantized_tensor<Scheme> owner;
    scheme_storage(index_t n, index_t k) : owner{random_quantized<Scheme>(n, k)} {}
    auto view() const { return owner.view(); }
};
template <class Format>
struct blocked_storage {
    static constexpr index_t unit = Format::block_size;
    static constexpr index_t group = Format::group_size;
    static constexpr index_t column_unit = unit;
    std::vector<typename Format::block> blocks;
    index_t n;
    index_t k;
    blocked_storage(index_t rows, index_t columns)
        : blocks(static_cast<std::size_t>(rows * columns / unit)), n{rows}, k{columns} {
        ts::philox const random{11};
        for (std::size_t b = 0; b < blocks.size(); ++b) {
            float values[unit];
            for (std::size_t i = 0; i < unit; ++i) values[i] = random.normal(unit * b + i);
            Format::encode(values, blocks[b]);
        }
    }
    ts::blocked<Format> view() const { return {blocks.data(), n, k}; }
};
/// Rows and columns with gaps.
template <class T>
struct dense_storage_of {
    static constexpr index_t group = 0;
    static constexpr index_t column_unit = 1;
    guarded<T> owner;
    dense_storage_of(index_t n, index_t k) : owner{n, k, 3, 1 + n % 2} { owner.fill(5); }
    ts::matrix_view<T const> view() const { return owner.view(); }
};

/// (n, k) around lanes and the group, and the m that go with them.
struct product_shape {
    index_t m;
    index_t n;
    index_t k;
};

template <class Storage>
std::vector<product_shape> product_shapes() {
    index_t const g = Storage::group == 0 ? 32 : Storage::group;
    std::vector<product_shape> shapes;
    auto const add = [&](std::initializer_list<index_t> ms, index_t n, index_t k) {
        for (index_t const m : ms) shapes.push_back({m, n, ts::round_up(k, Storage::column_unit)});
    };
    add({0, 1, 2, 3, 8, 9, 16, 17, 33}, 33, 8 * 16 + 2);
    add({0, 1, 9, 17}, 0, 7);
    add({0, 1, 9, 17}, 5, 0);
    add({1, 2, 17}, 1, 1);
    add({3, 8}, 3, g - 1);
    add({1, 16}, 4, g);
    add({2, 9, 17}, 17, g + 1);
    add({1, 33}, 15, 2 * g + 3);
    add({3}, 16, 31);
    add({16}, 7, 33);
    add({1, 4, 9}, 8 * 16 + 2, 67);
    add({40}, 131, 5 * g);
    return shapes;
}

template <class Op, class Exec, class Y>
void apply_to(Exec const& exec, Op const& w, guarded<float> const& x, guarded<Y>& y) {
    y.clear();
    ts::apply(exec, w, x.view(), y.view());
    CHECK(y.is_intact());
}

/// Canonical and placed on one instruction set; returns the worst error / tolerance.
template <class Arch, class Op>
double check_on(Op const& w, guarded<float> const& x, apply_case<Op> const& expected, product_shape s, guarded<float>& y) {
    CAPTURE(std::string{Arch::name});
    ts::cpu<Arch, ts::serial> const exec;
    guarded<float> again{s.m, s.n, 2, 2};
    apply_to(exec, w, x, y);
    double const ratio = expected.worst_ratio(ts::matrix_view<float const>{y.view()});
    CHECK(ratio <= 1.0);
    auto const placed = ts::place(exec, w);
    apply_to(exec, placed.view(), x, again);
    CHECK(same_bits(y, again));
    return ratio;
}

/// Every row alone gives the bits it has in the batch.
template <class Arch, class Op>
void check_batch_invariant(Op const& w, guarded<float> const& x, guarded<float> const& y) {
    ts::cpu<Arch, ts::serial> const exec;
    auto const placed = ts::place(exec, w);
    guarded<float> one{1, y.view().extent(1)};
    for (index_t m = 0; m < x.view().extent(0); m += 5) {
        ts::apply(exec, placed.view(), ts::rows(x.view(), m, m + 1), one.view());
        CHECK(same_bits<float>(one.view(), ts::rows(y.view(), m, m + 1)));
    }
}

/// Where x stays float32 nothing multiplies bytes.
template <class Preparation>
using archs_of = std::conditional_t<std::is_same_v<Preparation, ts::as_is>, archs_by_width, all_archs>;

/// The law on `Archs`; returns the worst error / tolerance.
template <class Storage, class Preparation, class Archs>
double check_law() {
    double worst = 0;
    index_t turn = 0;
    for (product_shape const s : product_shapes<Storage>()) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Storage const owner{s.n, s.k};
        ts::linear const w{owner.view(), Preparation{}};
        // Contiguous, with gaps between rows, and with gaps between columns.
        guarded<float> x{s.m, s.k, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> y{s.m, s.n, turn % 2, turn % 5 == 4 ? 3 : 1};
        ++turn;
        x.fill(17);
        apply_case<std::remove_const_t<decltype(w)>> const expected{w, x.view()};
        Archs::visit([&]<class Arch>(Arch) {
            worst = std::fmax(worst, check_on<Arch>(w, x, expected, s, y));
            if constexpr (ts::detail::activation_group<Preparation> >= 0) check_batch_invariant<Arch>(w, x, y);
        });
    }
    return worst;
}

template <class Storage, class Preparation, class Archs = archs_of<Preparation>>
void report_law(std::string const& name) {
    double const worst = check_law<Storage, Preparation, Archs>();
    MESSAGE(name << ": worst error / tolerance " << worst);
}

} // namespace tessera_test
