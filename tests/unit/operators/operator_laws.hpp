// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The law of every stored matrix: `apply` on every instruction set, of the canonical and of the placed form, over shapes
/// around lanes and groups and strided x and y, is the reference's result; placing changes no bit; and with an int8
/// preparation neither does what else is in the batch.

#include <doctest/doctest.h>

#include "cases/apply_case.hpp"
#include "cases/operands.hpp"
#include "support/instruction_sets.hpp"

#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>

#include <string>

namespace tessera_test {

/// Calls f(arch) for the instruction sets that this build's flags allow.
template <class F>
void for_each_arch(F const& f) {
    all_archs::visit(f);
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

/// The law of a storage that `Make{n, k}` owns, forward and transposed, on `Archs`; more(Arch{}, owner, x, y) judges what x became
/// besides. Returns the worst error / tolerance.
template <class Make, class Archs, class Shapes, class More>
double check_both_ways(Shapes const& shapes, More const& more) {
    double worst = 0;
    index_t turn = 0;
    for (product_shape const s : shapes) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Make const owner{s.n, s.k};
        ts::linear const w{owner.view()};
        auto const t = ts::transposed(w);
        ++turn;
        guarded<float> x{s.m, s.k, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> y{s.m, s.n, turn % 2, turn % 5 == 4 ? 3 : 1};
        guarded<float> dy{s.m, s.n, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> dx{s.m, s.k, turn % 2, turn % 5 == 4 ? 3 : 1};
        x.fill(17);
        dy.fill(19);
        apply_case<std::remove_const_t<decltype(w)>> const forward{w, x.view()};
        apply_case<std::remove_const_t<decltype(t)>> const backward{t, dy.view()};
        product_shape const turned{s.m, s.k, s.n};
        Archs::visit([&]<class Arch>(Arch arch) {
            worst = std::fmax(worst, check_on<Arch>(w, x, forward, s, y));
            worst = std::fmax(worst, check_on<Arch>(t, dy, backward, turned, dx));
            more(arch, w, x, y);
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
