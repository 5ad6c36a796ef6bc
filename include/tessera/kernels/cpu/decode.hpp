// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Stored matrices as float32, a tile at a time: `kernel<op::decode, cpu, Storage>`, and the transposed product that is
/// made of it: y = x W, the gradient with respect to the input of y = x Wᵀ, through any storage.

#include "apply.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A panel as float32 columns; dense ones are widened.
template <class Arch, index_t R, class Storage>
void decode_panel_columns(prepacked<panel<R, 4>, Storage> const& w, index_t p, float* out) noexcept {
    decode_panel<Arch>(w, w.panel_data(p), 0, w.cols(), out);
}
template <class Arch, index_t R, class T>
void decode_panel_columns(prepacked<panel<R, 1>, matrix_view<T const>> const& w, index_t p, float* out) noexcept {
    for (index_t k = 0; k < w.cols(); ++k) simd::store<Arch>(out + k * R, simd::load<Arch>(w.column(p, k)));
}

} // namespace detail

/// out(n - n0, k - k0) = W(n, k) for the tile [n0, n1) x [k0, k1), rows of out `stride` apart.
template <class Arch, class Parallel, class Storage>
struct kernel<op::decode, cpu<Arch, Parallel>, Storage> {
    static constexpr bool is_placed = detail::panel_form<Arch, Storage>::is_placed;
    static constexpr index_t R = simd::lanes<Arch>;

    /// Scratch: one decoded panel of placed storage.
    static index_t scratch_bytes(Storage const& w) noexcept {
        return is_placed ? R * detail::storage_columns(w) * static_cast<index_t>(sizeof(float)) : 0;
    }

    static void tile(Storage const& w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride,
                     std::byte* scratch) noexcept {
        if constexpr (is_placed) {
            auto* const columns = reinterpret_cast<float*>(scratch);
            for (index_t p = n0 / R; p * R < n1; ++p) {
                detail::decode_panel_columns<Arch>(w, p, columns);
                for (index_t n = maximum(n0, p * R); n < minimum(n1, (p + 1) * R); ++n)
                    for (index_t k = k0; k < k1; ++k) out[(n - n0) * stride + k - k0] = columns[k * R + n % R];
            }
        } else {
            static_cast<void>(scratch);
            for (index_t n = n0; n < n1; ++n)
                for (index_t k = k0; k < k1; ++k) out[(n - n0) * stride + k - k0] = static_cast<float>(w(n, k));
        }
    }
};

/// Rows of W are decoded in blocks of `block_rows`, whole or in part, and multiplied by columns of x; blocks are added in
/// order, so the sum does not depend on the tile. The preparation of the leaf is a matter of the forward product only.
template <class Arch, class Parallel, class Storage, class Preparation>
struct kernel<op::apply, cpu<Arch, Parallel>, transposed_operator<linear<Storage, Preparation>>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = transposed_operator<linear<Storage, Preparation>>;
    using decoder = kernel<op::decode, exec_type, Storage>;
    using form = float_rows<0>;
    using forms = type_list<form>;
    struct state {};
    static constexpr index_t block_rows = 64;
    static constexpr index_t R = simd::lanes<Arch>;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}

    /// Room for a tile that starts inside a register's width: columns are taken in whole registers.
    static index_t tile_stride(index_t columns) noexcept { return round_up(columns, R); }
    static index_t scratch_bytes(operand const& t, tile_size tile) noexcept {
        return block_rows * tile_stride(tile.n) * static_cast<index_t>(sizeof(float)) +
               decoder::scratch_bytes(t.inner().storage());
    }

    template <class Inputs>
    static void accumulate(operand const& t, Inputs const& inputs, state const&, product_task const& task,
                           std::byte* scratch) noexcept {
        form const& x = inputs.template get<form>();
        auto* const decoded = reinterpret_cast<float*>(scratch);
        index_t const stride = tile_stride(task.n1 - task.n0);
        std::byte* const rest = scratch + block_rows * stride * static_cast<index_t>(sizeof(float));
        index_t const inner_rows = t.inner().rows();
        for (index_t first = 0; first < inner_rows; first += block_rows) {
            index_t const last = minimum(first + block_rows, inner_rows);
            decoder::tile(t.inner().storage(), first, last, task.n0, task.n1, decoded, stride, rest);
            for (index_t r = 0; r < last - first; ++r)
                for (index_t n = task.n1 - task.n0; n < stride; ++n) decoded[r * stride + n] = 0.0f;
            for (index_t n = 0; n < stride; n += R)
                detail::for_row_blocks<detail::row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
                    float const* const column[1] = {decoded + n};
                    detail::multiply_columns<Arch, float, MR, 1>(column, stride, last - first, detail::strided_rows<MR>{x.row(m) + first, x.stride},
                                                                 task, m, task.n0 + n);
                });
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
