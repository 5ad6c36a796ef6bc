// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place` and the products of sparse operands on CUDA devices: `linear{csr}` and `linear{n_of_m}` are leaves like any other, alone or
/// as terms of a sum.
///
///     cuda<90> const exec{stream};
///     auto const layer = place(exec, linear{q} + linear{outliers});    // packs on the host, uploads
///     apply(exec, layer, x, y);                                        // few rows of x: one pass over both; many: one after another
///     apply(exec, transposed(layer.view()), dy, dx);                   // place(exec, transposed(...)) is faster for compressed rows
///
/// Values, layout and order: kernels/cuda/sparse.cuh. Error: that of the processors' products, a rounding for every entry of a row (of a
/// column, transposed) and a few more. Errors: those of `apply` and `place`.

#include "../kernels/cuda/sparse_strips.cuh"
#include "../kernels/ref/sparse.hpp"
#include "../operators/apply.cuh"

#include <vector>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Owner of sparse storage on a device.
template <int Sm, class Storage, class Preparation>
class placed_rows {
    using panels = prepacked<device_rows, Storage>;

public:
    using operator_type = linear<panels, Preparation>;

    placed_rows(cuda<Sm> const& exec, linear<Storage, Preparation> const& w, memory_arena* = nullptr) {
        require_as_is<Preparation>();
        check_device<Sm>("place");
        panels const shape = device_rows_of(w.storage(), nullptr);
        check::within("place", "rows of W", shape.rows(), 0, index_t{1} << 30);
        check::within("place", "chunks of 8 entries of W", shape.chunks(), 0, index_t{1} << 31);
        check::within("place", "columns of W", shape.cols(), 0, std::numeric_limits<std::int32_t>::max());
        memory_ = device_buffer<std::byte>{shape.bytes()};
        buffer<std::byte> host{shape.bytes()};
        for (std::byte& b : host) b = std::byte{0};
        pack_device_rows(w.storage(), shape, host.data());
        copy_bytes(stream_of(exec), memory_.data(), host.data(), shape.bytes(), cudaMemcpyHostToDevice);
        check_cuda("place", "cudaStreamSynchronize", cudaStreamSynchronize(stream_of(exec)));
        view_ = device_rows_of(w.storage(), memory_.data());
    }

    operator_type view() const& { return operator_type{view_.get()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return memory_.bytes(); }

private:
    device_buffer<std::byte> memory_;
    emptied_by_move<panels> view_;
};

/// Wᵀ in compressed rows. A scale of W's rows would be one of columns: int8 becomes float.
template <class T>
using turned_value = std::conditional_t<sparse_value<T>::has_scale, float, T>;
template <class T, class G>
csr_tensor<turned_value<T>> turned(csr<T, G> const& w) {
    std::vector<index_t> next(static_cast<std::size_t>(w.cols()) + 1, 0);
    auto const at = [&](index_t i) -> index_t& { return next[static_cast<std::size_t>(i)]; };
    for (index_t i = 0; i < w.nonzeros(); ++i) ++at(index_t{w.columns()[i]} + 1);
    for (index_t k = 0; k < w.cols(); ++k) at(k + 1) += at(k);
    auto to = csr_access::make<turned_value<T>, per_channel>(w.nonzeros(), w.cols(), w.rows());
    for (index_t k = 0; k <= w.cols(); ++k) csr_access::offsets(to)[k] = at(k);
    for (index_t n = 0; n < w.rows(); ++n)
        for (index_t i = w.row_begin(n); i < w.row_end(n); ++i) {
            index_t const slot = at(index_t{w.columns()[i]})++;
            csr_access::columns(to)[slot] = static_cast<std::int32_t>(n);
            if constexpr (sparse_value<T>::has_scale)
                to.values()[slot] = w.weight(n, i);
            else
                to.values()[slot] = w.values()[i];
        }
    return to;
}

} // namespace detail

template <int Sm, class T, class G, class Preparation>
class placed<cuda<Sm>, linear<csr<T, G>, Preparation>> : public detail::placed_rows<Sm, csr<T, G>, Preparation> {
public:
    using detail::placed_rows<Sm, csr<T, G>, Preparation>::placed_rows;
};
template <int Sm, index_t N, index_t M, class T, class G, class Preparation>
class placed<cuda<Sm>, linear<n_of_m<N, M, T, G>, Preparation>> : public detail::placed_rows<Sm, n_of_m<N, M, T, G>, Preparation> {
public:
    using detail::placed_rows<Sm, n_of_m<N, M, T, G>, Preparation>::placed_rows;
};

/// Transposed compressed rows are those of Wᵀ.
template <int Sm, class T, class G, class Preparation>
class placed<cuda<Sm>, transposed_operator<linear<csr<T, G>, Preparation>>>
    : public detail::placed_rows<Sm, csr<detail::turned_value<T>>, Preparation> {
    using base = detail::placed_rows<Sm, csr<detail::turned_value<T>>, Preparation>;

public:
    placed(cuda<Sm> const& exec, transposed_operator<linear<csr<T, G>, Preparation>> const& t, memory_arena* = nullptr)
        : placed{exec, detail::turned(t.inner().storage())} {}

private:
    placed(cuda<Sm> const& exec, csr_tensor<detail::turned_value<T>> const& w)
        : base{exec, linear<csr<detail::turned_value<T>>, Preparation>{w.view()}} {}
};

namespace detail {

/// Sparse rows as a term, and what they are multiplied by.
template <class Op>
struct outliers_of;
template <class T, class G, class Preparation>
struct outliers_of<linear<prepacked<device_rows, csr<T, G>>, Preparation>> {
    using op = linear<prepacked<device_rows, csr<T, G>>, Preparation>;
    static auto const& rows(op const& w) noexcept { return w.storage(); }
    static float factor(op const&) noexcept { return 1.0f; }
};
template <class T, class G, class Preparation>
struct outliers_of<scaled_operator<linear<prepacked<device_rows, csr<T, G>>, Preparation>>> {
    using op = scaled_operator<linear<prepacked<device_rows, csr<T, G>>, Preparation>>;
    static auto const& rows(op const& w) noexcept { return w.inner().storage(); }
    static float factor(op const& w) noexcept { return w.factor(); }
};
template <class Op>
concept outliers = requires(Op const& w) { outliers_of<Op>::factor(w); };

/// Whether a base takes sparse rows into its own pass: a row much longer than the mean would be waited for.
template <int Sm, class Storage, outliers Op, class X>
bool takes_outliers(linear<prepacked<device_panel, Storage>, as_bf16> const& base, Op const& w, matrix_view<X const> const& x) noexcept {
    auto const& rows = outliers_of<Op>::rows(w);
    return x.extent(1) > 0 && rows.longest_chunks() <= 4 * rows.mean_chunks() + 32 &&
           goes_by_strips<Sm, prepacked<device_panel, Storage>, as_bf16>(base.storage(), x.extent(0));
}

/// y = base + outliers, in the base's pass.
template <int Sm, class Base, outliers Op, class X, class Out, class Arena>
void run_with_outliers(cuda<Sm> const& exec, Base const& base, Op const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
    auto const& rows = outliers_of<Op>::rows(w);
    using Panels = std::remove_cvref_t<decltype(rows)>;
    float const factor = outliers_of<Op>::factor(w);
    // With more than 8 rows of x there are no registers for warps of their own; where blocks come one after another, others multiply
    // while one begins.
    bool const has_room = ceil_div(base.rows(), 32) <= product_blocks<Sm>;
    auto const run = [&]<class Source>(Source const& source) {
        using apply_base = kernel<op::apply, cuda<Sm>, Base>;
        if constexpr (Source::rows <= 8)
            if (has_room) return apply_base::run(exec, base, x, sparse_output<Out, Panels, Source, true>{out, rows, source, factor}, arena);
        apply_base::run(exec, base, x, sparse_output<Out, Panels, Source, false>{out, rows, source, factor}, arena);
    };
    auto const interleaved = [&]<int R>(std::integral_constant<int, R>) {
        X* const tile = arena.template carve<X>(R, x.extent(1));
        if constexpr (launches<Arena>)
            launch("apply", stream_of(exec), {grid_of(x.extent(1)), dim3(256), 0, Sm >= 90}, &interleave_kernel<Sm, R, X>, x, x.extent(1), tile);
        run(sparse_x_tile<R, X>{tile, x.extent(1)});
    };
    if (x.extent(0) == 1)
        run(sparse_x_row<X>{x});
    else if (x.extent(0) <= 8)
        interleaved(std::integral_constant<int, 8>{});
    else
        interleaved(std::integral_constant<int, 16>{});
}

} // namespace detail

/// Outliers of a base in panels, `as_bf16`: with few rows of x they are part of its pass. Either order; a low-rank term may follow.
template <int Sm, class Storage, detail::outliers Rows>
struct kernel<op::apply, cuda<Sm>, sum<linear<prepacked<device_panel, Storage>, as_bf16>, Rows>> {
    using operand = sum<linear<prepacked<device_panel, Storage>, as_bf16>, Rows>;
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        if (!detail::takes_outliers<Sm>(s.first(), s.second(), x)) return detail::run_sum(exec, s, x, out, arena);
        detail::run_with_outliers(exec, s.first(), s.second(), x, out, arena);
    }
};
template <int Sm, class Storage, detail::outliers Rows>
struct kernel<op::apply, cuda<Sm>, sum<Rows, linear<prepacked<device_panel, Storage>, as_bf16>>> {
    using operand = sum<Rows, linear<prepacked<device_panel, Storage>, as_bf16>>;
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        detail::run_operator(exec, s.second() + s.first(), x, out, arena);
    }
};
template <int Sm, class Storage, detail::outliers Rows, class T, class A>
struct kernel<op::apply, cuda<Sm>, sum<sum<linear<prepacked<device_panel, Storage>, as_bf16>, Rows>, detail::dense_low_rank<T, A>>> {
    using operand = sum<sum<linear<prepacked<device_panel, Storage>, as_bf16>, Rows>, detail::dense_low_rank<T, A>>;
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        auto const& base = s.first().first();
        if (!detail::takes_outliers<Sm>(base, s.first().second(), x) || !detail::takes_low_rank(s.second(), x)) return detail::run_sum(exec, s, x, out, arena);
        detail::run_with_low_rank(exec, base, s.second(), x, out, arena, x.extent(0) == 1, [&](auto const& with_term) {
            detail::run_with_outliers(exec, base, s.first().second(), x, with_term, arena);
        });
    }
};
template <int Sm, class Storage, detail::outliers Rows, class T, class A>
struct kernel<op::apply, cuda<Sm>, sum<sum<linear<prepacked<device_panel, Storage>, as_bf16>, detail::dense_low_rank<T, A>>, Rows>> {
    using operand = sum<sum<linear<prepacked<device_panel, Storage>, as_bf16>, detail::dense_low_rank<T, A>>, Rows>;
    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& s, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        detail::run_operator(exec, s.first().first() + s.second() + s.first().second(), x, out, arena);
    }
};

} // namespace tessera::inline TESSERA_ABI
