// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `apply` and `place` on CUDA devices: the same algebra over device panels.
///
///     cuda<90> const exec{stream};
///     auto const layer = place(exec, linear{q} + adapter);   // packs on the host, uploads; owns device memory
///     apply(exec, layer, x, y);                              // device views; asynchronous in the stream
///
/// A call launches one or two kernels for each leaf of the operator, and one before them for x where x is not rows of bf16 or the format
/// has offsets. Sums, products and slices keep float32 matrices in the workspace between their terms. Results do not
/// depend on what else runs, nor, but for `as_bf16`, on the number of rows of x: every row of y has the bits it has alone.
///
/// Errors: those of every `apply`; memory of the host or of another device, elements that are not aligned (shape_error), a device
/// that cannot run the code (unsupported_error), a CUDA call that fails or a workspace that would have to grow under capture
/// (cuda_error). Nothing is launched then. An epilogue's views are of device memory: `kernel_view(bias)`.

#include "../kernels/cuda/linear.cuh"
#include "../kernels/cuda/low_rank.cuh"
#include "../storage/device_memory.cuh"
#include "apply_bytes.cuh"
#include "apply_reference.hpp"
#include "placed.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <int Sm, class Op, class X, class Out, class Arena>
void run_operator(cuda<Sm> const& exec, Op const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
    kernel<op::apply, cuda<Sm>, Op>::run(exec, w, x, out, arena);
}

/// A float32 matrix of the workspace, and the output that writes it.
template <class Arena>
matrix_view<float> carve_matrix(Arena& arena, index_t m, index_t n) {
    return matrix_view<float>{arena.template carve<float>(m, n), m, n};
}
inline product_output<float, no_epilogue> into(matrix_view<float> const& y) noexcept { return {y, nullptr, 0, 1.0f, {}}; }

/// Columns [first, ...) of x between zeros, and the reverse.
template <class X>
__global__ void widen_kernel(__grid_constant__ matrix_view<X const> const x, index_t first, __grid_constant__ matrix_view<float> const y) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= y.size()) return;
    index_t const k = i % y.extent(1) - first;
    y(i / y.extent(1), i % y.extent(1)) = k >= 0 && k < x.extent(1) ? static_cast<float>(x(i / y.extent(1), k)) : 0.0f;
}
template <class Out>
__global__ void cut_kernel(__grid_constant__ matrix_view<float const> const from, index_t columns, index_t first, __grid_constant__ Out const out) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i < from.extent(0) * columns) out(i / columns, i % columns, from(i / columns, first + i % columns));
}

} // namespace detail

namespace detail {

/// b first, then a on top of it.
template <int Sm, class A, class B, class X, class Out, class Arena>
void run_sum(cuda<Sm> const& exec, sum<A, B> const& s, matrix_view<X const> const& x, Out out, Arena& arena) {
    auto const acc = carve_matrix(arena, x.extent(0), s.rows());
    run_operator(exec, s.second(), x, product_output<float, no_epilogue>{acc, out.base, out.base_stride, out.factor, {}}, arena);
    out.base = acc.data_handle();
    out.base_stride = acc.stride(0);
    run_operator(exec, s.first(), x, out, arena);
}

} // namespace detail

template <int Sm, class A, class B>
struct kernel<op::apply, cuda<Sm>, sum<A, B>> {
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, sum<A, B> const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        detail::run_sum(exec, s, x, out, arena);
    }
};

namespace detail {

/// A low-rank term with dense B.
template <class T, class A>
using dense_low_rank = scaled_operator<product<linear<prepacked<device_panel, matrix_view<T const>>, as_is>, A>>;

/// Whether a base adds a low-rank term where it writes y.
template <class T, class A, class X>
bool takes_low_rank(dense_low_rank<T, A> const& term, matrix_view<X const> const& x) noexcept {
    return x.extent(0) <= most_fused_rows && term.inner().first().cols() <= most_fused_rank;
}

/// run(output) with one that adds the term. `may_be_early`: the kernel that run() launches first is the base's.
template <int Sm, class Storage, class T, class A, class X, class Out, class Arena, class Run>
void run_with_low_rank(cuda<Sm> const& exec, linear<prepacked<device_panel, Storage>, as_bf16> const& base, dense_low_rank<T, A> const& term,
                       matrix_view<X const> const& x, Out const& out, Arena& arena, bool may_be_early, Run const& run) {
    auto const& p = term.inner();
    auto const a = rounded_operand<X>(p.second());
    using panels = prepacked<device_panel, matrix_view<T const>>;
    using side = typename side_of<Sm, std::remove_const_t<decltype(a)>>::type;
    low_rank_output<Out, panels, side> with_term{out, p.first().storage(), nullptr, term.factor(), {}, false};
    bool const beside = a.rows() > 0 && runs_beside<Sm>(base.storage(), a, x);
    bool is_made = a.rows() == 0;
    if constexpr (!std::is_same_v<side, no_side>) {
        if (beside && goes_by_strips<Sm, prepacked<device_panel, Storage>, as_bf16>(base.storage(), x.extent(0))) {
            with_term.side = make_side<side>(a, x.extent(0), arena);
            is_made = with_term.side.blocks > 0;
        }
    }
    if (!is_made) {
        auto const u = carve_matrix(arena, x.extent(0), a.rows());
        with_term.u = u.data_handle();
        with_term.x_is_ready = beside && may_be_early;
        if (with_term.x_is_ready)
            run_operator(exec, a, x, early_output{into(u)}, arena);
        else
            run_operator(exec, a, x, into(u), arena);
    }
    run(with_term);
}

} // namespace detail

/// A stored matrix and a low-rank term with dense B, `as_bf16`: with few rows of x the product adds the term where it writes y.
template <int Sm, class Storage, class T, class A>
struct kernel<op::apply, cuda<Sm>, sum<linear<prepacked<device_panel, Storage>, as_bf16>, detail::dense_low_rank<T, A>>> {
    using operand = sum<linear<prepacked<device_panel, Storage>, as_bf16>, detail::dense_low_rank<T, A>>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        if (!detail::takes_low_rank(s.second(), x)) return detail::run_sum(exec, s, x, out, arena);
        detail::run_with_low_rank(exec, s.first(), s.second(), x, out, arena, true,
                                  [&](auto const& with_term) { detail::run_operator(exec, s.first(), x, with_term, arena); });
    }
};

template <int Sm, class A>
struct kernel<op::apply, cuda<Sm>, scaled_operator<A>> {
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, scaled_operator<A> const& s, matrix_view<X const> const& x, Out out, Arena& arena) {
        out.factor *= s.factor();
        detail::run_operator(exec, s.inner(), x, out, arena);
    }
};

template <int Sm, class B, class A>
struct kernel<op::apply, cuda<Sm>, low_rank<B, A>> : kernel<op::apply, cuda<Sm>, scaled_operator<product<B, A>>> {};

template <int Sm, class A, class B>
struct kernel<op::apply, cuda<Sm>, product<A, B>> {
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, product<A, B> const& p, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        auto const u = detail::carve_matrix(arena, x.extent(0), p.second().rows());
        if (!u.empty()) detail::run_operator(exec, p.second(), x, detail::into(u), arena);
        detail::run_operator(exec, p.first(), matrix_view<float const>{u}, out, arena);
    }
};

template <int Sm, class A>
struct kernel<op::apply, cuda<Sm>, row_slice<A>> {
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, row_slice<A> const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        auto const whole = detail::carve_matrix(arena, x.extent(0), s.inner().rows());
        detail::run_operator(exec, s.inner(), x, detail::into(whole), arena);
        if constexpr (detail::launches<Arena>)
            detail::launch("apply", detail::stream_of(exec), {detail::grid_of(x.extent(0) * s.rows())}, &detail::cut_kernel<Out>,
                           matrix_view<float const>{whole}, s.rows(), s.first(), out);
    }
};

template <int Sm, class A>
struct kernel<op::apply, cuda<Sm>, column_slice<A>> {
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, column_slice<A> const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        auto const wide = detail::carve_matrix(arena, x.extent(0), s.inner().cols());
        if constexpr (detail::launches<Arena>)
            if (!wide.empty())
                detail::launch("apply", detail::stream_of(exec), {detail::grid_of(wide.size())}, &detail::widen_kernel<X>, x, s.first(), wide);
        detail::run_operator(exec, s.inner(), matrix_view<float const>{wide}, out, arena);
    }
};

namespace detail {

/// What an operator's leaves read is memory of the current device. An operator of canonical storage has no kernel, so it is of some device.
template <linear_operator Op>
void check_operator_there(char const* operation, char const* argument, Op const& w) {
    if (!has_several_devices()) return;
    if constexpr (requires { w.storage(); }) {
        auto const there = [&](void const* data, index_t bytes) { check_device_pointer(operation, argument, data, bytes); };
        if constexpr (requires { w.storage().for_each_array(there); })
            w.storage().for_each_array(there);
        else
            there(w.storage().data(), w.storage().bytes());
    } else if constexpr (requires { w.inner(); }) {
        check_operator_there(operation, argument, w.inner());
    } else if constexpr (requires { w.second(); }) {
        check_operator_there(operation, argument, w.first());
        check_operator_there(operation, argument, w.second());
    }
}

/// The same for what an epilogue reads; a function of the user reads nothing that is known here.
template <epilogue E>
void check_epilogue_there(char const*, E const&) noexcept {}
inline void check_epilogue_there(char const* operation, bias const& e) { check_device_pointer(operation, "the bias", e.b.data_handle(), e.b.size()); }
inline void check_epilogue_there(char const* operation, residual const& e) {
    check_device_pointer(operation, "the residual", e.r.data_handle(), e.r.size());
}
template <epilogue First, epilogue Second>
void check_epilogue_there(char const* operation, epilogue_pair<First, Second> const& e) {
    check_epilogue_there(operation, e.first);
    check_epilogue_there(operation, e.second);
}

/// The checks of a product on a device; calls run(x, y) with the kernels' views where y has elements.
template <int Sm, class Op, class VX, class VY, class Epilogue, class Run>
void checked_apply(Op const& w, VX const& x, VY const& y, Epilogue const& finish, Run const& run) {
    static_assert(is_device_view<VX> && is_device_view<VY>, "tessera: cuda<Sm> takes views of device memory (device_matrix_view), not of the host's");
    auto const values = activations("apply", kernel_view(x));
    check::equal("apply", "columns of x", x.extent(1), w.cols(), "columns of the operator");
    auto const to = results(kernel_view(y), x.extent(0), w.rows());
    check::no_overlap("apply", "x", footprint_of(values), "y", footprint_of(to));
    check_reads("apply", w, finish, to);
    if (to.empty()) return;
    check_device<Sm>("apply");
    check_device_pointer("apply", "x", x.data_handle(), x.size());
    check_device_pointer("apply", "y", y.data_handle(), y.size());
    check_operator_there("apply", "the operator", w);
    check_epilogue_there("apply", finish);
    run(values, to);
}

} // namespace detail

/// y = finish(x Wᵀ); see the file comment.
template <int Sm, linear_operator Op, class X, class EX, class LX, class AX, class Y, class EY, class LY, class AY, epilogue Epilogue = no_epilogue>
void apply(cuda<Sm> const& exec, Op const& w, view<X, EX, LX, AX> const& x, // (m, k)
           view<Y, EY, LY, AY> const& y,                                    // (m, n)
           Epilogue const& finish = {}) {
    detail::checked_apply<Sm>(w, x, y, finish, [&](auto const& values, matrix_view<Y> const& to) {
        detail::product_output<Y, Epilogue> const out{to, nullptr, 0, 1.0f, finish};
        workspace_sizer sizer;
        detail::run_operator(exec, w, values, out, sizer);
        detail::device_arena arena{detail::grown("apply", exec, sizer.bytes())};
        detail::run_operator(exec, w, values, out, arena);
    });
}

/// Bytes of scratch that `apply(exec, w, x, y)` carves from the policy's workspace.
template <int Sm, linear_operator Op, class X, class EX, class LX>
index_t workspace_bytes(cuda<Sm> const& exec, Op const& w, view<X, EX, LX, device_accessor<X>> const& x) {
    auto const values = detail::activations("workspace_bytes", kernel_view(x));
    check::equal("workspace_bytes", "columns of x", x.extent(1), w.cols(), "columns of the operator");
    workspace_sizer sizer;
    if (x.extent(0) > 0 && w.rows() > 0)
        detail::run_operator(exec, w, values, detail::into(matrix_view<float>{nullptr, x.extent(0), w.rows()}), sizer);
    return sizer.bytes();
}
template <int Sm, operator_owner Owner, class X>
index_t workspace_bytes(cuda<Sm> const& exec, Owner const& w, X const& x) {
    return workspace_bytes(exec, w.view(), x);
}

/// A stored matrix in device panels: packed on the host, uploaded.
template <int Sm, class Storage, class Preparation>
class placed<cuda<Sm>, linear<Storage, Preparation>> {
    using panels = prepacked<device_panel, Storage>;

public:
    using operator_type = linear<panels, Preparation>;

    placed(cuda<Sm> const& exec, linear<Storage, Preparation> const& w, memory_arena* = nullptr) : rows_{w.rows()}, cols_{w.cols()} {
        detail::check_device<Sm>("place");
        panels const to{nullptr, rows_, cols_};
        memory_ = detail::packed_memory(exec, to.bytes(), to.tiles(),
                                        [&](index_t t, std::byte* host) noexcept { detail::pack_device_tile(w.storage(), to, t, host); });
    }

    operator_type view() const& { return operator_type{panels{memory_.data(), rows_, cols_}}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return memory_.bytes(); }

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    device_buffer<std::byte> memory_;
};

/// Places an operator on the current device. Waits for the copies; throws cuda_error, std::bad_alloc.
template <int Sm, linear_operator Op>
placed<cuda<Sm>, Op> place(cuda<Sm> const& exec, Op const& w) {
    return {exec, w};
}

} // namespace tessera::inline TESSERA_ABI
