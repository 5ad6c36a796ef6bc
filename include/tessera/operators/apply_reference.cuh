// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `apply` by the definition, on a device: `cuda_reference<Sm>` with what `place(cuda<Sm>, ...)` made.
///
///     auto const layer = place(exec, linear{q} + adapter);
///     apply(exec, layer, x, y);                        // the kernels
///     apply(cuda_reference{exec}, layer, x, expected); // the definition of the same operator, on the same memory
///
/// A term adds factor * (x Wᵀ) to a matrix of doubles; a thread sums an element of it in the order of k (transposed: of n). Elements of
/// W are those of the canonical storage; only minima are added after a rounding of their own, and scales of two levels are one float.
/// Complexity O(m n k) for every leaf, scratch 8 (m k + 2 m n) bytes and more for products and slices. Errors: those of `apply`.

#include "../kernels/cuda/reference.cuh"
#include "../kernels/cuda/sparse.cuh"
#include "apply.cuh"
#include "reference.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A leaf's memory as the definition reads it: element (n, k) in float32, or a sum over what is stored.
template <class Placed>
struct defined_leaf;

template <class Storage>
struct defined_leaf<prepacked<device_panel, Storage>> {
    using panels = prepacked<device_panel, Storage>;
    using format = typename panels::format;
    panels w;
    decode_table<format> table = make_decode_table<format>();

    __device__ float operator()(index_t n, index_t k) const {
        float const value = panel_value(w, table, n, k);
        if constexpr (!format::has_scales) {
            return value;
        } else {
            index_t const i = w.scale_of(n, k);
            float const scale = stored_to_float(w.scales()[i]);
            if constexpr (!format::has_offsets) {
                return scale * value;
            } else if constexpr (format::source::offset == offset_kind::zero_point) {
                float const zero = rintf(w.offsets()[i] / -scale); // the offset is -scale * zero, rounded
                return fabsf(zero) <= 255.0f ? scale * (value - zero) : __fadd_rn(__fmul_rn(scale, value), w.offsets()[i]);
            } else {
                return __fadd_rn(__fmul_rn(scale, value), w.offsets()[i]);
            }
        }
    }
};

template <class Storage>
struct defined_leaf<prepacked<device_tile, Storage>> {
    using tiles = prepacked<device_tile, Storage>;
    tiles w;
    decode_table<typename tiles::format> table = make_decode_table<typename tiles::format>();

    __device__ float operator()(index_t n, index_t k) const {
        std::byte const code = w.data()[w.locate(n, k)];
        float const scale = w.scales()[w.scale_index(n, k)];
        if constexpr (tiles::is_float8)
            return scale * table.values[static_cast<unsigned>(code)];
        else
            return scale * static_cast<float>(static_cast<signed char>(code));
    }
};

template <class Storage>
struct defined_leaf<prepacked<device_nibbles, Storage>> {
    prepacked<device_nibbles, Storage> w;

    __device__ float operator()(index_t n, index_t k) const {
        auto const at = w.locate(n, k);
        auto const code = static_cast<int>(static_cast<unsigned>(w.data()[at.byte]) >> at.bit & 15u);
        return stored_to_float(w.scales()[w.scale_index(n, k)]) * static_cast<float>(code < 8 ? code : code - 16);
    }
};

template <class Storage>
struct defined_leaf<prepacked<device_rows, Storage>> {
    prepacked<device_rows, Storage> w;

    /// Calls f(k, weight) for what is stored in row n.
    template <class F>
    __device__ void for_each_entry(index_t n, F const& f) const {
        if constexpr (requires { w.has_narrow_columns(); }) {
            if (w.has_narrow_columns()) return visit<std::uint16_t>(n, f);
        }
        visit<std::int32_t>(n, f);
    }

private:
    template <class Column, class F>
    __device__ void visit(index_t n, F const& f) const {
        sparse_row<prepacked<device_rows, Storage>, Column> const row{w, n};
        for (int i = 0; i < row.entries; ++i)
            if (int const k = row.column(i); k >= 0) f(index_t{k}, row.scale * row.value(i));
    }
};

template <class Storage>
__device__ double reference_dot(defined_leaf<prepacked<device_rows, Storage>> const& w, index_t n, index_t, double const* x) {
    double dot = 0;
    w.for_each_entry(n, [&](index_t k, float weight) { dot += x[k] * static_cast<double>(weight); });
    return dot;
}
template <class Storage>
__device__ double reference_transposed_dot(defined_leaf<prepacked<device_rows, Storage>> const& w, index_t k, index_t rows, double const* x) {
    double dot = 0;
    for (index_t n = 0; n < rows; ++n)
        w.for_each_entry(n, [&](index_t column, float weight) { dot += column == k ? x[n] * static_cast<double>(weight) : 0.0; });
    return dot;
}

/// A row of x as its preparation makes it.
template <class Preparation>
struct prepare_definition {
    __device__ static void row(index_t m, matrix_view<double const> x, matrix_view<double> y) {
        reference_prepare<Preparation>(&x(m, 0), x.extent(1), &y(m, 0));
    }
};

/// y(m, n) += factor * sum over k of x(m, k) W(n, k); transposed: W(k, n).
template <bool IsTransposed, class Leaf>
__global__ void define_product_kernel(__grid_constant__ Leaf const w, __grid_constant__ matrix_view<double const> const x, double factor,
                                      __grid_constant__ matrix_view<double> const y) {
    index_t const i = static_cast<index_t>(blockIdx.x) * definition_threads + threadIdx.x;
    if (i >= y.size()) return;
    index_t const m = i / y.extent(1);
    index_t const n = i % y.extent(1);
    double const* const row = x.data_handle() + m * x.extent(1);
    double dot = 0;
    if constexpr (IsTransposed)
        dot = reference_transposed_dot(w, n, x.extent(1), row);
    else
        dot = reference_dot(w, n, x.extent(1), row);
    y(m, n) += factor * dot;
}

template <class X>
struct doubles_definition {
    __device__ static void row(index_t m, matrix_view<X const> x, matrix_view<double> y) {
        for (index_t k = 0; k < x.extent(1); ++k) y(m, k) = static_cast<double>(static_cast<float>(x(m, k)));
    }
};
template <class Y, class Epilogue>
struct finish_definition {
    __device__ static void row(index_t m, matrix_view<double const> sums, Epilogue finish, matrix_view<Y> y) {
        for (index_t n = 0; n < y.extent(1); ++n) y(m, n) = static_cast<Y>(finish(static_cast<float>(sums(m, n)), m, n));
    }
};
/// y(m, n) += x(m, first + n), and y = x from its column `first` on.
struct cut_definition {
    __device__ static void row(index_t m, matrix_view<double const> x, index_t first, matrix_view<double> y) {
        for (index_t n = 0; n < y.extent(1); ++n) y(m, n) += x(m, first + n);
    }
};
struct widen_definition {
    __device__ static void row(index_t m, matrix_view<double const> x, index_t first, matrix_view<double> y) {
        for (index_t k = 0; k < y.extent(1); ++k) y(m, k) = k >= first && k < first + x.extent(1) ? x(m, k - first) : 0.0;
    }
};

/// A matrix of zeros of the workspace.
template <int Sm, class Arena>
matrix_view<double> carve_zeros(cuda_reference<Sm> const& exec, index_t m, index_t n, Arena& arena) {
    auto* const data = arena.template carve<double>(m, n);
    if constexpr (launches<Arena>)
        check_cuda("apply", "cudaMemsetAsync", cudaMemsetAsync(data, 0, static_cast<std::size_t>(m * n) * sizeof(double), stream_of(exec)));
    return matrix_view<double>{data, m, n};
}

template <int Sm, class Op, class Arena>
void define_operator(cuda_reference<Sm> const& exec, Op const& w, matrix_view<double const> const& x, double factor, matrix_view<double> const& y,
                     Arena& arena) {
    kernel<op::apply, cuda_reference<Sm>, Op>::run(exec, w, x, factor, y, arena);
}

template <bool IsTransposed, int Sm, class Storage, class Arena>
void define_leaf(cuda_reference<Sm> const& exec, Storage const& w, matrix_view<double const> const& x, double factor, matrix_view<double> const& y,
                 Arena&) {
    if constexpr (launches<Arena>)
        launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(ceil_div(y.size(), definition_threads))), dim3(definition_threads)},
               &define_product_kernel<IsTransposed, defined_leaf<Storage>>, defined_leaf<Storage>{w}, x, factor, y);
}

} // namespace detail

/// y += factor * (x Wᵀ), all in double and without gaps.
template <int Sm, class Layout, class Storage, class Preparation>
struct kernel<op::apply, cuda_reference<Sm>, linear<prepacked<Layout, Storage>, Preparation>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, linear<prepacked<Layout, Storage>, Preparation> const& w, matrix_view<double const> const& x,
                    double factor, matrix_view<double> const& y, Arena& arena) {
        matrix_view<double> const prepared{arena.template carve<double>(x.extent(0), x.extent(1)), x.extent(0), x.extent(1)};
        if (y.empty()) return;
        if constexpr (detail::launches<Arena>)
            if (!x.empty()) detail::define_rows<detail::prepare_definition<Preparation>>("apply", exec, x.extent(0), x, prepared);
        detail::define_leaf<false>(exec, w.storage(), prepared, factor, y, arena);
    }
};

template <int Sm, class Layout, class Storage, class Preparation>
struct kernel<op::apply, cuda_reference<Sm>, transposed_operator<linear<prepacked<Layout, Storage>, Preparation>>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, transposed_operator<linear<prepacked<Layout, Storage>, Preparation>> const& t,
                    matrix_view<double const> const& x, double factor, matrix_view<double> const& y, Arena& arena) {
        if (!y.empty()) detail::define_leaf<true>(exec, t.inner().storage(), x, factor, y, arena);
    }
};

template <int Sm, class A, class B>
struct kernel<op::apply, cuda_reference<Sm>, sum<A, B>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, sum<A, B> const& s, matrix_view<double const> const& x, double factor,
                    matrix_view<double> const& y, Arena& arena) {
        detail::define_operator(exec, s.first(), x, factor, y, arena);
        detail::define_operator(exec, s.second(), x, factor, y, arena);
    }
};

template <int Sm, class A, class B>
struct kernel<op::apply, cuda_reference<Sm>, product<A, B>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, product<A, B> const& p, matrix_view<double const> const& x, double factor,
                    matrix_view<double> const& y, Arena& arena) {
        auto const u = detail::carve_zeros(exec, x.extent(0), p.second().rows(), arena);
        detail::define_operator(exec, p.second(), x, 1.0, u, arena);
        detail::define_operator(exec, p.first(), matrix_view<double const>{u}, factor, y, arena);
    }
};

template <int Sm, class A>
struct kernel<op::apply, cuda_reference<Sm>, scaled_operator<A>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, scaled_operator<A> const& s, matrix_view<double const> const& x, double factor,
                    matrix_view<double> const& y, Arena& arena) {
        detail::define_operator(exec, s.inner(), x, factor * static_cast<double>(s.factor()), y, arena);
    }
};

template <int Sm, class B, class A>
struct kernel<op::apply, cuda_reference<Sm>, low_rank<B, A>> : kernel<op::apply, cuda_reference<Sm>, scaled_operator<product<B, A>>> {};

template <int Sm, class A>
struct kernel<op::apply, cuda_reference<Sm>, row_slice<A>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, row_slice<A> const& s, matrix_view<double const> const& x, double factor,
                    matrix_view<double> const& y, Arena& arena) {
        auto const whole = detail::carve_zeros(exec, x.extent(0), s.inner().rows(), arena);
        detail::define_operator(exec, s.inner(), x, factor, whole, arena);
        if constexpr (detail::launches<Arena>)
            if (!y.empty()) detail::define_rows<detail::cut_definition>("apply", exec, y.extent(0), matrix_view<double const>{whole}, s.first(), y);
    }
};

template <int Sm, class A>
struct kernel<op::apply, cuda_reference<Sm>, column_slice<A>> {
    template <class Arena>
    static void run(cuda_reference<Sm> const& exec, column_slice<A> const& s, matrix_view<double const> const& x, double factor,
                    matrix_view<double> const& y, Arena& arena) {
        auto const wide = detail::carve_zeros(exec, x.extent(0), s.inner().cols(), arena);
        if constexpr (detail::launches<Arena>)
            if (!wide.empty()) detail::define_rows<detail::widen_definition>("apply", exec, wide.extent(0), x, s.first(), wide);
        detail::define_operator(exec, s.inner(), matrix_view<double const>{wide}, factor, y, arena);
    }
};

namespace detail {

/// All of it: x in double, sums, y.
template <int Sm, class Op, class X, class Y, class Epilogue, class Arena>
void define_apply(cuda_reference<Sm> const& exec, Op const& w, matrix_view<X const> const& x, matrix_view<Y> const& y, Epilogue const& finish,
                  Arena& arena) {
    auto const values = carve_zeros(exec, x.extent(0), x.extent(1), arena);
    auto const sums = carve_zeros(exec, x.extent(0), w.rows(), arena);
    if constexpr (launches<Arena>)
        if (!x.empty()) define_rows<doubles_definition<X>>("apply", exec, x.extent(0), x, values);
    define_operator(exec, w, matrix_view<double const>{values}, 1.0, sums, arena);
    if constexpr (launches<Arena>) define_rows<finish_definition<Y, Epilogue>>("apply", exec, y.extent(0), matrix_view<double const>{sums}, finish, y);
}

} // namespace detail

/// y = finish(x Wᵀ) by the definition; see the file comment.
template <int Sm, linear_operator Op, class X, class EX, class LX, class AX, class Y, class EY, class LY, class AY, epilogue Epilogue = no_epilogue>
void apply(cuda_reference<Sm> const& exec, Op const& w, view<X, EX, LX, AX> const& x, // (m, k)
           view<Y, EY, LY, AY> const& y,                                              // (m, n)
           Epilogue const& finish = {}) {
    detail::checked_apply<Sm>(w, x, y, finish, [&](auto const& values, matrix_view<Y> const& to) {
        workspace_sizer sizer;
        detail::define_apply(exec, w, values, to, finish, sizer);
        detail::device_arena arena{detail::grown("apply", exec, sizer.bytes())};
        detail::define_apply(exec, w, values, to, finish, arena);
    });
}

/// Bytes of scratch that `apply(exec, w, x, y)` carves from the policy's workspace.
template <int Sm, linear_operator Op, class X, class EX, class LX>
index_t workspace_bytes(cuda_reference<Sm> const& exec, Op const& w, view<X, EX, LX, device_accessor<X>> const& x) {
    auto const values = detail::activations("workspace_bytes", kernel_view(x));
    check::equal("workspace_bytes", "columns of x", x.extent(1), w.cols(), "columns of the operator");
    workspace_sizer sizer;
    if (x.extent(0) > 0 && w.rows() > 0)
        detail::define_apply(exec, w, values, matrix_view<float>{nullptr, x.extent(0), w.rows()}, no_epilogue{}, sizer);
    return sizer.bytes();
}
template <int Sm, operator_owner Owner, class X>
index_t workspace_bytes(cuda_reference<Sm> const& exec, Owner const& w, X const& x) {
    return workspace_bytes(exec, w.view(), x);
}

} // namespace tessera::inline TESSERA_ABI
