// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// DoRA (weight-decomposed low-rank adaptation): the rows of base plus low-rank term, each with a length of its own:
///
///     W = diag(m / |W0 + s B A|) (W0 + s B A),   |.| the Euclidean norm of a row
///
///     auto const adapter = ts::low_rank{b, a, 16.f / rank};
///     auto const factors = ts::dora_factors(exec, base, adapter, magnitude);    // owns m / |W0 + s B A|, (n)
///     auto const layer   = ts::place(exec, ts::dora{base, adapter, factors});
///
/// The norms are taken once, of the base as it decodes: a quantised base is not touched. Source: arXiv:2402.09353,
/// section 4; PEFT's tuners/lora/dora.py.

#include "../kernels/cpu/decode.hpp"
#include "../operators/apply.hpp"
#include "../operators/diagonal.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

/// diag(factors) (base + adapter).
template <class Base, class LowRank>
class dora : public row_scaled<sum<Base, LowRank>> {
public:
    template <class F>
    dora(Base const& base, LowRank const& adapter, F const& factors) // (n)
        : row_scaled<sum<Base, LowRank>>{factors, base + adapter} {}
    /// The operator would outlive what it refers to.
    dora(Base const&, LowRank const&, vector<float> const&&) = delete;

    constexpr Base const& base() const noexcept { return this->inner().first(); }
    constexpr LowRank const& adapter() const noexcept { return this->inner().second(); }
};
template <class Base, class LowRank, class F>
dora(Base const&, LowRank const&, F const&) -> dora<Base, LowRank>;

template <class Exec, class Base, class LowRank>
struct kernel<op::apply, Exec, dora<Base, LowRank>> : kernel<op::apply, Exec, row_scaled<sum<Base, LowRank>>> {};

template <class Exec, class Base, class LowRank>
class placed<Exec, dora<Base, LowRank>> : public placed<Exec, row_scaled<sum<Base, LowRank>>> {
public:
    placed(Exec const& exec, dora<Base, LowRank> const& w, memory_arena* arena = nullptr)
        : placed<Exec, row_scaled<sum<Base, LowRank>>>{exec, w, arena} {}
};

namespace detail {

template <class Op>
inline constexpr bool is_sum = false;
template <class A, class B>
inline constexpr bool is_sum<sum<A, B>> = true;
template <class Op>
inline constexpr bool is_product = false;
template <class A, class B>
inline constexpr bool is_product<product<A, B>> = true;

/// Rows [n0, n0 + rows of out) of W in float32.
template <class Exec, linear_operator Op>
void decode_rows(Exec const& exec, Op const& w, index_t n0, matrix_view<float> const& out) { // (rows, k)
    index_t const rows = out.extent(0);
    index_t const k = out.extent(1);
    workspace_scope scope{exec.scratch()};
    if constexpr (is_sum<Op>) {
        matrix_view<float> const second{scope.carve<float>(rows, k), rows, k};
        decode_rows(exec, w.first(), n0, out);
        decode_rows(exec, w.second(), n0, second);
        for (index_t n = 0; n < rows; ++n)
            for (index_t j = 0; j < k; ++j) out(n, j) += second(n, j);
    } else if constexpr (requires { w.factor(); }) {
        decode_rows(exec, w.inner(), n0, out);
        for (index_t n = 0; n < rows; ++n)
            for (index_t j = 0; j < k; ++j) out(n, j) *= w.factor();
    } else if constexpr (is_product<Op>) {
        matrix_view<float> const left{scope.carve<float>(rows, w.first().cols()), rows, w.first().cols()};
        decode_rows(exec, w.first(), n0, left);
        apply(exec, transposed(w.second()), left, out);
    } else {
        // Row n is e_n W. Stored matrices decode; of others a product finds it.
        constexpr bool decodes = requires { w.storage(); } && !std::is_same_v<Exec, reference> &&
                                 !requires { w.storage().for_each_array([](void const*, index_t) {}); };
        if constexpr (decodes) {
            using decoder = kernel<op::decode, Exec, std::remove_cvref_t<decltype(w.storage())>>;
            decoder::tile(w.storage(), n0, n0 + rows, 0, k, out.data_handle(), k,
                          scope.carve<std::byte>(decoder::scratch_bytes(w.storage())));
        } else {
            matrix_view<float> const unit{scope.carve<float>(rows, w.rows()), rows, w.rows()};
            for (index_t n = 0; n < rows; ++n)
                for (index_t j = 0; j < w.rows(); ++j) unit(n, j) = j == n0 + n ? 1.0f : 0.0f;
            apply(exec, transposed(w), unit, out);
        }
    }
}

} // namespace detail

/// The factors of DoRA, magnitude / |row of base + adapter|; a row of zeros has the factor 0. Decodes the base once.
/// @throws shape_error when shapes do not fit, std::bad_alloc
template <execution_policy Exec, linear_operator Base, linear_operator LowRank, class F>
vector<float> dora_factors(Exec const& exec, Base const& base, LowRank const& adapter, F const& magnitude) { // (n)
    vector_view<float const> const m = detail::factors_of(magnitude);
    auto const w = base + adapter;
    check::equal("dora_factors", "size of the magnitude", m.extent(0), w.rows(), "rows of the base");
    check::not_null("dora_factors", "the magnitude", m.data_handle(), w.rows());
    constexpr index_t block = 32;
    vector<float> factors{w.rows()};
    matrix<float> decoded{minimum(block, w.rows()), w.cols()};
    for (index_t n0 = 0; n0 < w.rows(); n0 += block) {
        index_t const n = minimum(block, w.rows() - n0);
        matrix_view<float> const part = rows(decoded.view(), 0, n);
        detail::decode_rows(exec, w, n0, part);
        for (index_t i = 0; i < n; ++i) {
            double squares = 0;
            for (index_t k = 0; k < w.cols(); ++k) squares += static_cast<double>(part(i, k)) * static_cast<double>(part(i, k));
            factors(n0 + i) = squares == 0 ? 0.0f : static_cast<float>(static_cast<double>(m[n0 + i]) / std::sqrt(squares));
        }
    }
    return factors;
}

} // namespace tessera::inline TESSERA_ABI
