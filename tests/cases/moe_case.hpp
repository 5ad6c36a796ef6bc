// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Random routers and experts, and the bound of a mixture's error, for tests of every backend.

#include "apply_case.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/moe/block.hpp>

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

} // namespace moe_test
