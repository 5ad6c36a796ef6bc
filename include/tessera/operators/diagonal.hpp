// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// An operator times a diagonal matrix, on either side; views like all operators:
///
/// | expression | W | y = x Wᵀ |
/// |---|---|---|
/// | `row_scaled{f, a}` | diag(f) A | column n of y times f[n] |
/// | `column_scaled{a, f}` | A diag(f) | column k of x times f[k] first: x is copied |
///
/// Each is the other's transpose.

#include "../core/overlap.hpp"
#include "place.hpp"
#include "reference.hpp"
#include "terms.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A vector of float, as a view or as an owner that outlives the operator.
template <class T, class E, class L>
vector_view<float const> factors_of(view<T, E, L, default_accessor<T>> const& f) noexcept {
    return f;
}
inline vector_view<float const> factors_of(vector<float> const& f) noexcept { return f.view(); }

/// An operator and a factor for each of its rows or columns.
template <linear_operator A>
class with_factors {
public:
    using is_linear_operator = void;
    with_factors(char const* operation, A const& a, vector_view<float const> const& f, index_t size, char const* why)
        : a_{a}, factors_{f} {
        check::equal(operation, "number of factors", f.extent(0), size, why);
        check::not_null(operation, "the factors", f.data_handle(), size);
    }
    constexpr index_t rows() const noexcept { return a_.rows(); }
    constexpr index_t cols() const noexcept { return a_.cols(); }
    constexpr A const& inner() const noexcept { return a_; }
    constexpr vector_view<float const> const& factors() const noexcept { return factors_; }

private:
    A a_;
    vector_view<float const> factors_;
};

} // namespace detail

/// diag(f) A.
template <linear_operator A>
class row_scaled : public detail::with_factors<A> {
public:
    template <class F>
    row_scaled(F const& f, A const& a) // (n)
        : detail::with_factors<A>{"row_scaled", a, detail::factors_of(f), a.rows(), "rows of the operator"} {}
    /// The operator would outlive what it refers to.
    row_scaled(vector<float> const&&, A const&) = delete;
};
template <class F, linear_operator A>
row_scaled(F const&, A const&) -> row_scaled<A>;

/// A diag(f).
template <linear_operator A>
class column_scaled : public detail::with_factors<A> {
public:
    template <class F>
    column_scaled(A const& a, F const& f) // (k)
        : detail::with_factors<A>{"column_scaled", a, detail::factors_of(f), a.cols(), "columns of the operator"} {}
    /// The operator would outlive what it refers to.
    column_scaled(A const&, vector<float> const&&) = delete;
};
template <linear_operator A, class F>
column_scaled(A const&, F const&) -> column_scaled<A>;

/// diag(f) A is transposed to Aᵀ diag(f).
template <linear_operator A>
auto transposed(row_scaled<A> const& s) {
    return column_scaled{transposed(s.inner()), s.factors()};
}
template <linear_operator A>
auto transposed(column_scaled<A> const& s) {
    return row_scaled{s.factors(), transposed(s.inner())};
}

// --- the definitions -------------------------------------------------------------------------------------------------

template <class A>
struct kernel<op::apply, reference, row_scaled<A>> {
    static void plan(row_scaled<A> const& s, workspace_sizer& sizer) {
        sizer.carve<double>(s.rows());
        kernel<op::apply, reference, A>::plan(s.inner(), sizer);
    }
    static void row(row_scaled<A> const& s, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const part = scope.carve<double>(s.rows());
        for (index_t n = 0; n < s.rows(); ++n) part[n] = 0;
        kernel<op::apply, reference, A>::row(s.inner(), x, part, 1.0, arena);
        for (index_t n = 0; n < s.rows(); ++n) y[n] += factor * static_cast<double>(s.factors()[n]) * part[n];
    }
};

template <class A>
struct kernel<op::apply, reference, column_scaled<A>> {
    static void plan(column_scaled<A> const& s, workspace_sizer& sizer) {
        sizer.carve<double>(s.cols());
        kernel<op::apply, reference, A>::plan(s.inner(), sizer);
    }
    static void row(column_scaled<A> const& s, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const scaled = scope.carve<double>(s.cols());
        for (index_t k = 0; k < s.cols(); ++k) scaled[k] = static_cast<double>(s.factors()[k]) * x[k];
        kernel<op::apply, reference, A>::row(s.inner(), scaled, y, factor, arena);
    }
};

// --- inside a product ------------------------------------------------------------------------------------------------

/// A's part of a tile goes to a tile of its own, whose columns are then scaled into the accumulator.
template <class Exec, class A>
struct kernel<op::apply, Exec, row_scaled<A>> {
    using inner = kernel<op::apply, Exec, A>;
    using forms = typename inner::forms;
    using state = typename inner::state;
    static index_t tile_rows(row_scaled<A> const& s) noexcept { return detail::tile_rows_of<inner>(s.inner()); }
    template <class Arena>
    static state plan(Exec const& exec, row_scaled<A> const& s, index_t m, Arena& arena) {
        return inner::plan(exec, s.inner(), m, arena);
    }
    template <class Inputs>
    static void prepare(Exec const& exec, row_scaled<A> const& s, Inputs const& inputs, state const& st) noexcept {
        inner::prepare(exec, s.inner(), inputs, st);
    }
    static index_t tile_bytes(index_t elements) noexcept {
        return round_up(elements * static_cast<index_t>(sizeof(float)), config::cache_line);
    }
    static index_t scratch_bytes(row_scaled<A> const& s, tile_size tile) noexcept {
        return tile_bytes(tile.m * tile.n) + inner::scratch_bytes(s.inner(), tile);
    }
    template <class Inputs>
    static void accumulate(row_scaled<A> const& s, Inputs const& inputs, state const& st, product_task const& task,
                           std::byte* scratch) noexcept {
        index_t const elements = (task.m1 - task.m0) * task.stride;
        product_task part = task;
        part.factor = 1.0f;
        part.accumulator = reinterpret_cast<float*>(scratch);
        for (index_t i = 0; i < elements; ++i) part.accumulator[i] = 0.0f;
        inner::accumulate(s.inner(), inputs, st, part, scratch + tile_bytes(elements));
        for (index_t n = task.n0; n < task.n1; ++n) {
            float const f = task.factor * s.factors()[n];
            for (index_t m = task.m0; m < task.m1; ++m) {
                index_t const at = (m - task.m0) * task.stride + n - task.n0;
                task.accumulator[at] += f * part.accumulator[at];
            }
        }
    }
};

/// x diag(f) is prepared for A.
template <class Exec, class A>
struct kernel<op::apply, Exec, column_scaled<A>> {
    using inner = kernel<op::apply, Exec, A>;
    using forms = type_list<float_rows<0>>;
    using inner_inputs = input_set<typename inner::forms>;
    static index_t tile_rows(column_scaled<A> const& s) noexcept { return detail::tile_rows_of<inner>(s.inner()); }
    struct state {
        typename inner::state a;
        inner_inputs inputs;
        matrix_view<float> x; // (m, k)
    };
    template <class Arena>
    static state plan(Exec const& exec, column_scaled<A> const& s, index_t m, Arena& arena) {
        state st;
        st.x = matrix_view<float>{arena.template carve<float>(m, s.cols()), m, s.cols()};
        st.inputs = inner_inputs::template plan<Exec>(matrix_view<float const>{st.x}, arena);
        st.a = inner::plan(exec, s.inner(), m, arena);
        return st;
    }
    template <class Inputs>
    static void prepare(Exec const& exec, column_scaled<A> const& s, Inputs const& inputs, state const& st) noexcept {
        auto const& x = inputs.template get<float_rows<0>>();
        for (index_t m = 0; m < st.x.extent(0); ++m)
            for (index_t k = 0; k < st.x.extent(1); ++k) st.x(m, k) = s.factors()[k] * x.row(m)[k];
        st.inputs.run(exec, matrix_view<float const>{st.x});
        inner::prepare(exec, s.inner(), st.inputs, st.a);
    }
    static index_t scratch_bytes(column_scaled<A> const& s, tile_size tile) noexcept {
        return inner::scratch_bytes(s.inner(), tile);
    }
    template <class Inputs>
    static void accumulate(column_scaled<A> const& s, Inputs const&, state const& st, product_task const& task,
                           std::byte* scratch) noexcept {
        inner::accumulate(s.inner(), st.inputs, st.a, task, scratch);
    }
};

// --- placed ----------------------------------------------------------------------------------------------------------

namespace detail {

/// A placed operator and a copy of its factors.
template <class Exec, class A>
class placed_with_factors {
public:
    placed_with_factors(Exec const& exec, with_factors<A> const& s, memory_arena* arena)
        : inner_{exec, s.inner(), arena}, factors_{s.factors().extent(0)} {
        for (index_t i = 0; i < factors_.size(); ++i) factors_.data()[i] = s.factors()[i];
    }
    index_t bytes() const noexcept { return inner_.bytes() + factors_.size() * static_cast<index_t>(sizeof(float)); }

protected:
    placed<Exec, A> inner_;
    vector<float> factors_;
};

} // namespace detail

template <class Exec, class A>
class placed<Exec, row_scaled<A>> : public detail::placed_with_factors<Exec, A> {
public:
    placed(Exec const& exec, row_scaled<A> const& s, memory_arena* arena = nullptr)
        : detail::placed_with_factors<Exec, A>{exec, s, arena} {}
    auto view() const& { return row_scaled{this->factors_, this->inner_.view()}; }
    void view() const&& = delete;
};

template <class Exec, class A>
class placed<Exec, column_scaled<A>> : public detail::placed_with_factors<Exec, A> {
public:
    placed(Exec const& exec, column_scaled<A> const& s, memory_arena* arena = nullptr)
        : detail::placed_with_factors<Exec, A>{exec, s, arena} {}
    auto view() const& { return column_scaled{this->inner_.view(), this->factors_}; }
    void view() const&& = delete;
};

} // namespace tessera::inline TESSERA_ABI
