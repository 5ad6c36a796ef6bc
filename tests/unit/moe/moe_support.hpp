// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the tests of moe/ share: random routers and experts, every policy of this build, and the bound of a mixture's error.

#include <doctest/doctest.h>

#include "cases/apply_case.hpp"
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

namespace ts = tessera;
using tessera_test::error_model;
using tessera_test::guarded;
using tessera_test::row_of_doubles;
using tessera_test::same_bits;
using ts::index_t;

inline constexpr double u = ts::unit_roundoff<float>;
inline double gamma_of(index_t k) { return ts::gamma(k, u); }

using dense = ts::linear<ts::matrix_view<float const>>;
using dense_unit = ts::gated_expert<dense>;

/// Calls f(policy) for the instruction sets of `Archs`.
template <class Archs = tessera_test::archs_by_width, class F>
void for_each_cpu(F const& f) {
    Archs::visit([&]<class Arch>(Arch) { f(ts::cpu<Arch, ts::serial>{}); });
}

/// (rows, columns) of normal numbers divided by the square root of the columns.
inline ts::matrix<float> random_weights(index_t rows, index_t columns, std::uint64_t seed) {
    ts::matrix<float> w(rows, columns);
    ts::philox const random{seed};
    float const scale = 1.0f / std::sqrt(static_cast<float>(ts::maximum(columns, 1)));
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = scale * random.normal(static_cast<std::uint64_t>(i));
    return w;
}

/// Owners of the float weights of a router, experts and a shared one: width h, hidden width f, outputs n.
struct dense_weights {
    ts::matrix<float> router;
    std::vector<ts::matrix<float>> gate, up, down; // the last of each belongs to the shared expert
    ts::matrix<float> shared_weight;
    index_t experts;

    dense_weights(index_t e, index_t h, index_t f, index_t n, std::uint64_t seed = 1)
        : router{random_weights(e, h, seed)}, shared_weight{random_weights(1, h, seed + 1)}, experts{e} {
        for (index_t i = 0; i <= e; ++i) {
            auto const at = seed + 10 + 3 * static_cast<std::uint64_t>(i);
            gate.push_back(random_weights(f, h, at));
            up.push_back(random_weights(f, h, at + 1));
            down.push_back(random_weights(n, f, at + 2));
        }
    }
    dense_unit unit(index_t i) const {
        auto const at = static_cast<std::size_t>(i);
        return {dense{gate[at].view()}, dense{up[at].view()}, dense{down[at].view()}};
    }
    std::vector<dense_unit> units() const {
        std::vector<dense_unit> all;
        for (index_t i = 0; i < experts; ++i) all.push_back(unit(i));
        return all;
    }
};

/// Values of one row and bounds of their error.
struct bounded_row {
    row_of_doubles value;
    row_of_doubles error;
};

inline row_of_doubles exact_row(auto const& w, row_of_doubles const& x) {
    row_of_doubles y(static_cast<std::size_t>(w.rows()), 0.0);
    ts::kernel<ts::op::apply, ts::reference, std::remove_cvref_t<decltype(w)>>::row(w, x.data(), y.data(), 1.0,
                                                                                     ts::detail::default_workspace());
    return y;
}

/// x wᵀ in float32 for an x with errors of its own.
template <class Op>
bounded_row product_row(Op const& w, bounded_row const& x) {
    bounded_row y;
    y.value = exact_row(w, x.value);
    row_of_doubles with_error = x.value;
    for (std::size_t k = 0; k < x.value.size(); ++k) with_error[k] = std::abs(x.value[k]) + x.error[k];
    row_of_doubles const size = error_model<Op>::magnitude(w, with_error);
    row_of_doubles const carried = error_model<Op>::magnitude(w, x.error);
    for (std::size_t n = 0; n < size.size(); ++n)
        y.error.push_back(gamma_of(error_model<Op>::roundings(w)) * size[n] + carried[n] + 0x1p-140);
    return y;
}

/// A gated unit: silu has a slope of at most 1.1, and is within 3.5 ulp (nn/activation.hpp).
template <class G, class U, class D>
bounded_row expert_row(ts::gated_expert<G, U, D> const& e, bounded_row const& x) {
    bounded_row const g = product_row(e.gate(), x);
    bounded_row const v = product_row(e.up(), x);
    bounded_row h;
    for (std::size_t i = 0; i < g.value.size(); ++i) {
        double const s = ts::activation::silu::value(g.value[i]);
        double const ds = 1.1 * g.error[i] + 7 * u * std::abs(s);
        h.value.push_back(s * v.value[i]);
        h.error.push_back((ds * (std::abs(v.value[i]) + v.error[i]) + std::abs(s) * v.error[i]) * (1 + 2 * u) +
                          u * std::abs(h.value.back()));
    }
    return product_row(e.down(), h);
}
template <ts::linear_operator Op>
bounded_row expert_row(Op const& e, bounded_row const& x) {
    return product_row(e, x);
}

/// Relative error of a gate's weight: of the logits that it depends on, of the exponentials and sums of a softmax or a sigmoid,
/// of renormalising and scaling.
inline double weight_error(row_of_doubles const& logits, double logit_error, index_t k) {
    auto const [low, high] = std::minmax_element(logits.begin(), logits.end());
    auto const experts = static_cast<index_t>(logits.size());
    double const one = gamma_of(experts + 16) + u * (*high - *low) + 2.1 * logit_error;
    return 2 * one + gamma_of(k + 6);
}

/// |cpu - reference| of a whole mixture for the row x of float32 numbers; the router must decide by more than its error.
template <class Moe>
row_of_doubles mixture_error(Moe const& m, row_of_doubles const& x, ts::matrix_view<std::int32_t const> index,
                             ts::matrix_view<float const> weight, index_t t) {
    bounded_row const input{x, row_of_doubles(x.size(), 0.0)};
    bounded_row const logits = product_row(m.router().weights(), input);
    double const logit_error = *std::max_element(logits.error.begin(), logits.error.end());
    row_of_doubles error(static_cast<std::size_t>(m.rows()), 0.0);
    row_of_doubles size = error;
    auto const add = [&](bounded_row const& d, double w, double relative) {
        for (std::size_t n = 0; n < error.size(); ++n) {
            error[n] += w * (d.error[n] * (1 + relative) + relative * std::abs(d.value[n]));
            size[n] += w * (std::abs(d.value[n]) + d.error[n]);
        }
    };
    double const relative = weight_error(logits.value, logit_error, m.router().k());
    for (index_t j = 0; j < m.router().k(); ++j)
        add(expert_row(m.experts()[static_cast<std::size_t>(index(t, j))], input), std::abs(double{weight(t, j)}), relative);
    if constexpr (requires { m.shared().weight(); }) {
        bounded_row const l = product_row(m.shared().weight(), input);
        add(expert_row(m.shared().expert(), input), 1.0, l.error[0] + 8 * u);
    } else if constexpr (requires { m.shared().expert(); }) {
        add(expert_row(m.shared().expert(), input), 1.0, 0.0);
    }
    for (std::size_t n = 0; n < error.size(); ++n) error[n] += gamma_of(m.router().k() + 3) * size[n];
    return error;
}

template <class T>
row_of_doubles row_of(ts::matrix_view<T const> x, index_t t) {
    row_of_doubles row;
    for (index_t k = 0; k < x.extent(1); ++k) row.push_back(static_cast<double>(static_cast<float>(x(t, k))));
    return row;
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
        auto const here = ts::apply(exec, m, x, y.view(), loads.view());
        CHECK(y.is_intact());
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
