// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the operators of the algebra do inside a product, for every backend: `kernel<op::apply, Exec, sum<A, B>>` and so
/// on, by the contract of kernels/kernel.hpp. None of them touches an element of W; leaves do.

#include "../core/tile.hpp"
#include "../kernels/forms.hpp"
#include "../kernels/inputs.hpp"
#include "linear_operator.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Scratch of one run of a product: an accumulator tile and the terms' own bytes, for every worker.
struct run_scratch {
    tile_size tile{};
    index_t workers = 1;
    index_t term_bytes = 0;
    float* accumulators = nullptr;
    std::byte* bytes = nullptr;
};

/// The rows of a tile with which a kernel is fastest. Whoever runs an operator takes them: bits of float products depend on how
/// many rows are in a tile.
template <class Kernel, class Op>
constexpr index_t tile_rows_of(Op const& op) noexcept {
    if constexpr (requires { Kernel::tile_rows(op); })
        return Kernel::tile_rows(op);
    else
        return 128;
}

template <class Exec, class Op, class Arena>
run_scratch plan_run(Exec const& exec, Op const& op, index_t m, Arena& arena) {
    run_scratch s;
    s.tile = product_tile(auto_tile{}, m, op.rows(), tile_rows_of<kernel<op::apply, Exec, Op>>(op));
    s.workers = maximum(1, exec.parallel().concurrency());
    s.term_bytes = round_up(kernel<op::apply, Exec, Op>::scratch_bytes(op, s.tile), config::cache_line);
    s.accumulators = arena.template carve<float>(s.workers, s.tile.m, s.tile.n);
    s.bytes = arena.template carve<std::byte>(s.workers, s.term_bytes);
    return s;
}

/// The loop over tiles of y: zero, accumulate, finish. `finish(task)` writes a tile, or a part of one.
template <class Exec, class Op, class Inputs, class State, class Finish>
void run_product(Exec const& exec, Op const& op, index_t m, Inputs const& inputs, State const& state,
                 run_scratch const& s, Finish const& finish) noexcept {
    index_t const across = ceil_div(op.rows(), s.tile.n);
    index_t const down = ceil_div(m, s.tile.m);
    // Tiles of the same columns follow each other, whose weights are still in the cache; or tiles of the same rows, where x
    // (taken for 16-bit) is too large to stay there.
    bool const by_rows = 2 * m * op.cols() > config::level_2_bytes;
    // With few rows of x the operand streams by once: a worker takes tiles that follow each other, so that what it fetches
    // ahead of one is the next. Which worker makes a tile changes nothing in it.
    index_t const together = m > 16 ? 1 : ceil_div(across * down, s.workers);
    parallel_for(exec.parallel(), across * down, together, [&](index_t first, index_t last, index_t worker) noexcept {
        for (index_t t = first; t < last; ++t) {
            index_t const n0 = (by_rows ? t % across : t / down) * s.tile.n;
            index_t const m0 = (by_rows ? t / across : t % down) * s.tile.m;
            product_task const task{m0, minimum(m0 + s.tile.m, m), n0, minimum(n0 + s.tile.n, op.rows()), 1.0f,
                                    s.accumulators + worker * s.tile.m * s.tile.n, s.tile.n};
            using term = kernel<op::apply, Exec, Op>;
            std::byte* const scratch = s.bytes + worker * s.term_bytes;
            if constexpr (requires { term::make(op, inputs, state, task, scratch, tile_finisher{finish}); }) {
                term::make(op, inputs, state, task, scratch, tile_finisher{finish});
            } else {
                for (index_t i = 0; i < (task.m1 - task.m0) * task.stride; ++i) task.accumulator[i] = 0.0f;
                term::accumulate(op, inputs, state, task, scratch);
                finish(task);
            }
        }
    });
}

/// Writes a tile of a float32 matrix.
inline void store_tile(product_task const& task, matrix_view<float> const& y) noexcept {
    for (index_t m = task.m0; m < task.m1; ++m)
        for (index_t n = task.n0; n < task.n1; ++n) y(m, n) = task.accumulator[(m - task.m0) * task.stride + n - task.n0];
}

} // namespace detail

template <class Exec, class A, class B>
struct kernel<op::apply, Exec, sum<A, B>> {
    using first = kernel<op::apply, Exec, A>;
    using second = kernel<op::apply, Exec, B>;
    using forms = list_union<typename first::forms, typename second::forms>;
    static index_t tile_rows(sum<A, B> const& s) noexcept {
        return minimum(detail::tile_rows_of<first>(s.first()), detail::tile_rows_of<second>(s.second()));
    }
    struct state {
        typename first::state a;
        typename second::state b;
    };
    template <class Arena>
    static state plan(Exec const& exec, sum<A, B> const& s, index_t m, Arena& arena) {
        auto const a = first::plan(exec, s.first(), m, arena);
        return {a, second::plan(exec, s.second(), m, arena)};
    }
    template <class Inputs>
    static void prepare(Exec const& exec, sum<A, B> const& s, Inputs const& inputs, state const& st) noexcept {
        first::prepare(exec, s.first(), inputs, st.a);
        second::prepare(exec, s.second(), inputs, st.b);
    }
    static index_t scratch_bytes(sum<A, B> const& s, tile_size tile) noexcept {
        return maximum(first::scratch_bytes(s.first(), tile), second::scratch_bytes(s.second(), tile));
    }
    template <class Inputs>
    static void accumulate(sum<A, B> const& s, Inputs const& inputs, state const& st, product_task const& task,
                           std::byte* scratch) noexcept {
        first::accumulate(s.first(), inputs, st.a, task, scratch);
        second::accumulate(s.second(), inputs, st.b, task, scratch);
    }
};

template <class Exec, class A>
struct kernel<op::apply, Exec, scaled_operator<A>> {
    using inner = kernel<op::apply, Exec, A>;
    using forms = typename inner::forms;
    using state = typename inner::state;
    static index_t tile_rows(scaled_operator<A> const& s) noexcept { return detail::tile_rows_of<inner>(s.inner()); }
    template <class Arena>
    static state plan(Exec const& exec, scaled_operator<A> const& s, index_t m, Arena& arena) {
        return inner::plan(exec, s.inner(), m, arena);
    }
    template <class Inputs>
    static void prepare(Exec const& exec, scaled_operator<A> const& s, Inputs const& inputs, state const& st) noexcept {
        inner::prepare(exec, s.inner(), inputs, st);
    }
    static index_t scratch_bytes(scaled_operator<A> const& s, tile_size tile) noexcept {
        return inner::scratch_bytes(s.inner(), tile);
    }
    template <class Inputs>
    static void accumulate(scaled_operator<A> const& s, Inputs const& inputs, state const& st, product_task task,
                           std::byte* scratch) noexcept {
        task.factor *= s.factor();
        inner::accumulate(s.inner(), inputs, st, task, scratch);
    }
};

template <class Exec, class B, class A>
struct kernel<op::apply, Exec, low_rank<B, A>> : kernel<op::apply, Exec, scaled_operator<product<B, A>>> {};

/// u = x Bᵀ is computed, and prepared for A, before the loop over y's tiles.
template <class Exec, class A, class B>
struct kernel<op::apply, Exec, product<A, B>> {
    using outer = kernel<op::apply, Exec, A>;
    using inner = kernel<op::apply, Exec, B>;
    using forms = typename inner::forms;
    static index_t tile_rows(product<A, B> const& p) noexcept { return detail::tile_rows_of<outer>(p.first()); }
    using outer_inputs = input_set<typename outer::forms>;
    struct state {
        typename outer::state a;
        typename inner::state b;
        outer_inputs inputs;
        detail::run_scratch run;
        matrix_view<float> u; // (m, r)
    };
    template <class Arena>
    static state plan(Exec const& exec, product<A, B> const& p, index_t m, Arena& arena) {
        state s;
        s.b = inner::plan(exec, p.second(), m, arena);
        s.u = matrix_view<float>{arena.template carve<float>(m, p.second().rows()), m, p.second().rows()};
        s.run = detail::plan_run(exec, p.second(), m, arena);
        s.inputs = outer_inputs::template plan<Exec>(matrix_view<float const>{s.u}, arena);
        s.a = outer::plan(exec, p.first(), m, arena);
        return s;
    }
    template <class Inputs>
    static void prepare(Exec const& exec, product<A, B> const& p, Inputs const& inputs, state const& s) noexcept {
        inner::prepare(exec, p.second(), inputs, s.b);
        detail::run_product(exec, p.second(), s.u.extent(0), inputs, s.b, s.run,
                            [&](product_task const& task) noexcept { detail::store_tile(task, s.u); });
        s.inputs.run(exec, matrix_view<float const>{s.u});
        outer::prepare(exec, p.first(), s.inputs, s.a);
    }
    static index_t scratch_bytes(product<A, B> const& p, tile_size tile) noexcept {
        return outer::scratch_bytes(p.first(), tile);
    }
    template <class Inputs>
    static void accumulate(product<A, B> const& p, Inputs const&, state const& s, product_task const& task,
                           std::byte* scratch) noexcept {
        outer::accumulate(p.first(), s.inputs, s.a, task, scratch);
    }
};

template <class Exec, class A>
struct kernel<op::apply, Exec, row_slice<A>> {
    using inner = kernel<op::apply, Exec, A>;
    using forms = typename inner::forms;
    using state = typename inner::state;
    static index_t tile_rows(row_slice<A> const& s) noexcept { return detail::tile_rows_of<inner>(s.inner()); }
    template <class Arena>
    static state plan(Exec const& exec, row_slice<A> const& s, index_t m, Arena& arena) {
        return inner::plan(exec, s.inner(), m, arena);
    }
    template <class Inputs>
    static void prepare(Exec const& exec, row_slice<A> const& s, Inputs const& inputs, state const& st) noexcept {
        inner::prepare(exec, s.inner(), inputs, st);
    }
    static index_t scratch_bytes(row_slice<A> const& s, tile_size tile) noexcept {
        return inner::scratch_bytes(s.inner(), tile);
    }
    template <class Inputs>
    static void accumulate(row_slice<A> const& s, Inputs const& inputs, state const& st, product_task task,
                           std::byte* scratch) noexcept {
        task.n0 += s.first();
        task.n1 += s.first();
        inner::accumulate(s.inner(), inputs, st, task, scratch);
    }
};

/// x is copied between zeros into rows as wide as all of A.
template <class Exec, class A>
struct kernel<op::apply, Exec, column_slice<A>> {
    using inner = kernel<op::apply, Exec, A>;
    using forms = type_list<float_rows<0>>;
    static index_t tile_rows(column_slice<A> const& s) noexcept { return detail::tile_rows_of<inner>(s.inner()); }
    using inner_inputs = input_set<typename inner::forms>;
    struct state {
        typename inner::state a;
        inner_inputs inputs;
        matrix_view<float> wide; // (m, columns of A)
    };
    template <class Arena>
    static state plan(Exec const& exec, column_slice<A> const& s, index_t m, Arena& arena) {
        state st;
        st.wide = matrix_view<float>{arena.template carve<float>(m, s.inner().cols()), m, s.inner().cols()};
        st.inputs = inner_inputs::template plan<Exec>(matrix_view<float const>{st.wide}, arena);
        st.a = inner::plan(exec, s.inner(), m, arena);
        return st;
    }
    template <class Inputs>
    static void prepare(Exec const& exec, column_slice<A> const& s, Inputs const& inputs, state const& st) noexcept {
        auto const& x = inputs.template get<float_rows<0>>();
        for (index_t m = 0; m < st.wide.extent(0); ++m)
            for (index_t k = 0; k < st.wide.extent(1); ++k)
                st.wide(m, k) = k >= s.first() && k < s.first() + s.cols() ? x.row(m)[k - s.first()] : 0.0f;
        st.inputs.run(exec, matrix_view<float const>{st.wide});
        inner::prepare(exec, s.inner(), st.inputs, st.a);
    }
    static index_t scratch_bytes(column_slice<A> const& s, tile_size tile) noexcept {
        return inner::scratch_bytes(s.inner(), tile);
    }
    template <class Inputs>
    static void accumulate(column_slice<A> const& s, Inputs const&, state const& st, product_task const& task,
                           std::byte* scratch) noexcept {
        inner::accumulate(s.inner(), st.inputs, st.a, task, scratch);
    }
};

} // namespace tessera::inline TESSERA_ABI
