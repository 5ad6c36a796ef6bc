// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the tests of moe/ share: every policy of this build, and a mixture against the definition on them.

#include <doctest/doctest.h>

#include "cases/moe_case.hpp"
#include "support/instruction_sets.hpp"

#include <tessera/core/thread_pool.hpp>
#include <tessera/moe/moe.hpp>
#include <tessera/nn/activation.hpp>
#include <tessera/quant/quantize.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace moe_test {

/// Calls f(policy) for the instruction sets of `Archs`.
template <class Archs = tessera_test::archs_by_width, class F>
void for_each_cpu(F const& f) {
    Archs::visit([&]<class Arch>(Arch) { f(ts::cpu<Arch, ts::serial>{}); });
}

/// The mixture on the instruction sets of `Archs`, placed and not, against the reference; y has gaps. Gates and experts have
/// tests of their own, so that one mixture on all sets is enough.
template <class Archs = tessera_test::best_arch, class Moe>
double check_mixture(Moe const& m, ts::matrix_view<float const> x) {
    index_t const tokens = x.extent(0);
    index_t const k = m.router().k();
    ts::matrix<std::int32_t> index(tokens, k);
    ts::matrix<float> weight(tokens, k);
    ts::route(ts::reference{}, m.router(), x, index, weight);
    guarded<float> expected{tokens, m.rows()};
    ts::vector<index_t> counts(m.router().experts());
    auto const report = ts::apply(ts::reference{}, m, x, expected.view(), counts.view());
    std::vector<row_of_doubles> bound;
    for (index_t t = 0; t < tokens; ++t) bound.push_back(mixture_error(m, row_of(x, t), index.view(), weight.view(), t));
    double worst = 0;
    for_each_cpu<Archs>([&](auto const& exec) {
        CAPTURE(std::string{exec.arch().name});
        ts::matrix<std::int32_t> chosen(tokens, k);
        ts::matrix<float> weights(tokens, k);
        ts::route(exec, m.router(), x, chosen, weights);
        for (index_t i = 0; i < chosen.size(); ++i) CHECK(chosen.data()[i] == index.data()[i]);
        guarded<float> y{tokens, m.rows(), 1 + tokens % 2, 1 + tokens % 3};
        ts::vector<index_t> loads(m.router().experts());
        ts::matrix<std::int32_t> routed(tokens, k);
        ts::matrix<float> given(tokens, k);
        auto const here = ts::apply(exec, m, x, y.view(), ts::routing_details{loads.view(), routed.view(), given.view()});
        CHECK(y.is_intact());
        for (index_t i = 0; i < chosen.size(); ++i) CHECK((routed.data()[i] == chosen.data()[i] && given.data()[i] == weights.data()[i]));
        CHECK(here.used == report.used);
        CHECK(here.entropy == report.entropy);
        for (index_t e = 0; e < loads.size(); ++e) CHECK(loads(e) == counts(e));
        for (index_t t = 0; t < tokens; ++t)
            for (index_t n = 0; n < m.rows(); ++n) {
                double const allowed = bound[static_cast<std::size_t>(t)][static_cast<std::size_t>(n)] +
                                       u * std::abs(double{expected.view()(t, n)}) + 0x1p-140;
                double const error = std::abs(double{y.view()(t, n)} - double{expected.view()(t, n)});
                worst = error / allowed >= worst ? error / allowed : worst;
                if (!(error <= allowed)) CHECK(error <= allowed);
            }
        auto const ready = ts::place(exec, m);
        guarded<float> again{tokens, m.rows()};
        ts::apply(exec, ready, x, again.view());
        CHECK(same_bits(y, again));
    });
    return worst;
}

/// The mixture by public steps on whole matrices, every expert by itself.
template <class Exec, class Router, class Unit>
void compose(Exec const& exec, Router const& router, std::vector<Unit> const& units, ts::matrix_view<float const> x,
             ts::matrix_view<float> y) {
    index_t const tokens = x.extent(0);
    ts::matrix<std::int32_t> index(tokens, router.k());
    ts::matrix<float> weight(tokens, router.k());
    ts::route(exec, router, x, index, weight);
    ts::workspace memory;
    ts::workspace_scope scope{memory};
    auto const plan = ts::plan_experts(exec, scope, index.view(), router.experts());
    ts::matrix<float> rows(plan.slots(), y.extent(1));
    for (index_t e = 0; e < router.experts(); ++e) {
        Unit const& unit = units[static_cast<std::size_t>(e)];
        index_t const m = plan.count(e);
        ts::matrix<float> part(m, x.extent(1)), gate(m, unit.width()), up(m, unit.width()), hidden(m, unit.width());
        for (index_t i = 0; i < m; ++i)
            for (index_t c = 0; c < x.extent(1); ++c) part(i, c) = x(plan.token(plan.offsets()[e] + i), c);
        ts::apply(exec, unit.gate(), part, gate);
        ts::apply(exec, unit.up(), part, up);
        ts::swiglu(exec, gate, up, hidden);
        ts::apply(exec, unit.down(), hidden.view(), ts::rows(rows.view(), plan.offsets()[e], plan.offsets()[e + 1]));
    }
    ts::combine(exec, plan, weight.view(), rows.view(), y);
}

} // namespace moe_test
