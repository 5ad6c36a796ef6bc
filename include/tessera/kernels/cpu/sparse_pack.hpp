// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Sparse storage into panels (storage/sparse_panels.hpp describes them), a window or a panel at a time, and x into
/// columns.

#include "../../simd/transpose.hpp"
#include "../../storage/sparse_panels.hpp"
#include "../float_columns.hpp"
#include "../kernel.hpp"
#include "prepare.hpp"

#include <cstddef>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Rows [first, first + count) of w by falling length, equal ones in their order; the rest of `order` is itself.
template <class Storage>
void sort_by_length(Storage const& w, index_t first, index_t count, index_t size, std::uint8_t* order) noexcept {
    auto const length = [&](std::uint8_t r) { return w.row_end(first + r) - w.row_begin(first + r); };
    for (index_t i = 0; i < size; ++i) {
        auto const r = static_cast<std::uint8_t>(i);
        index_t at = i;
        if (i < count)
            for (; at > 0 && length(order[at - 1]) < length(r); --at) order[at] = order[at - 1];
        order[at] = r;
    }
}

/// A panel of the rows `order` of the window at `first`; returns its end.
template <index_t R, class Panel, class Storage>
std::byte* pack_jagged_panel(Storage const& w, index_t first, index_t count, std::uint8_t const* order,
                             std::byte* out) noexcept {
    index_t entries = 0;
    std::uint32_t lengths[R];
    for (index_t r = 0; r < R; ++r) {
        bool const exists = order[r] < count;
        index_t const n = first + order[r];
        lengths[r] = exists ? static_cast<std::uint32_t>(w.row_end(n) - w.row_begin(n)) : 0;
        entries += lengths[r];
    }
    *reinterpret_cast<std::uint64_t*>(out) = static_cast<std::uint64_t>(entries);
    Panel const panel = Panel::read(out);
    auto const writable = []<class P>(P const* p) { return const_cast<P*>(p); };
    for (index_t r = 0; r < R; ++r) {
        writable(panel.lengths)[r] = lengths[r];
        writable(panel.order)[r] = order[r];
        if constexpr (Storage::has_scale) writable(panel.scales)[r] = order[r] < count ? w.scale(first + order[r]) : 0.0f;
        if (lengths[r] == 0) continue;
        index_t at = r;
        index_t from = w.row_begin(first + order[r]);
        index_t j = 0;
        // Entries R apart while all rows have one, then closer, as rows end.
        for (index_t c = R; c > r; --c)
            for (; j < static_cast<index_t>(lengths[c - 1]); ++j, ++from, at += c) {
                writable(panel.columns)[at] = static_cast<std::remove_cvref_t<decltype(*panel.columns)>>(w.columns()[from]);
                writable(panel.values)[at] = w.values()[from];
            }
    }
    return out + Panel::bytes(entries);
}

} // namespace detail

/// Writes window `window` of `w` at `out` (`packed.window_bytes(its nonzeros)` bytes); `packed` has the shape of w.
template <index_t R, class T, class G>
void pack_window(csr<T, G> const& w, prepacked<jagged<R>, csr<T, G>> const& packed, index_t window, std::byte* out) noexcept {
    packed.with_panel_type([&]<class Panel>(Panel) {
        index_t const first = window * packed.window_rows();
        index_t const count = minimum(packed.window_rows(), w.rows() - first);
        std::uint8_t order[64];
        detail::sort_by_length(w, first, count, packed.window_rows(), order);
        for (index_t p = 0; p < packed.window_panels(window); ++p)
            out = detail::pack_jagged_panel<R, Panel>(w, first, count, order + p * R, out);
    });
}

/// Nonzeros of a window.
template <index_t R, class T, class G>
index_t window_nonzeros(csr<T, G> const& w, prepacked<jagged<R>, csr<T, G>> const& packed, index_t window) noexcept {
    index_t const first = window * packed.window_rows();
    return w.row_begin(minimum(first + packed.window_rows(), w.rows())) - w.row_begin(first);
}

/// Writes panel `p` of `w` at `out` (`panel_bytes()` bytes of the placed form).
template <index_t R, index_t N, index_t M, class T, class G>
void pack_panel(n_of_m<N, M, T, G> const& w, prepacked<kept<R>, n_of_m<N, M, T, G>> const&, index_t p,
                std::byte* out) noexcept {
    using target = prepacked<kept<R>, n_of_m<N, M, T, G>>;
    using stored = typename target::stored_type;
    index_t const rows = minimum(R, w.rows() - p * R);
    if constexpr (target::has_scale)
        for (index_t r = 0; r < R; ++r) reinterpret_cast<float*>(out)[r] = r < rows ? w.scale(p * R + r) : 0.0f;
    out += target::header_bytes;
    for (index_t first = 0; first < w.groups(); first += target::record_groups) {
        index_t const groups = minimum(target::record_groups, w.groups() - first);
        auto* const words = reinterpret_cast<std::uint32_t*>(out);
        auto* const values = reinterpret_cast<stored*>(out + target::positions_bytes);
        for (index_t i = 0; i < target::record_words * R; ++i) words[i] = 0;
        for (index_t s = 0; s < groups * N; ++s)
            for (index_t r = 0; r < R; ++r) {
                index_t const slot = first * N + s;
                bool const exists = r < rows && w.column(p * R + r, slot) < w.cols();
                values[s * R + r] = exists ? w.value(p * R + r, slot) : static_cast<stored>(0.0f);
                if (r < rows)
                    words[s / target::word_slots * R + r] |= static_cast<std::uint32_t>(w.position(p * R + r, slot))
                                                             << s % target::word_slots * target::position_bits;
            }
        out += target::record_bytes(groups);
    }
}

/// x into columns: squares of R rows by R columns are turned in registers.
template <class Arch, class Parallel, index_t R>
struct kernel<op::prepare, cpu<Arch, Parallel>, float_columns<R>> {
    using type = float_columns<R>;

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        type form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        form.width = type::width_of(form.rows);
        if (form.rows >= type::fewest_rows)
            form.data = arena.template carve<float>(form.blocks(), maximum(form.columns, 1), form.width);
        return form;
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        if (!form.exists()) return;
        index_t const across = ceil_div(form.columns, R);
        parallel_for(exec.parallel(), across, detail::prepare_grain(R * form.rows), [&](index_t first, index_t last, index_t) noexcept {
            alignas(64) float square[R * R];
            alignas(64) float turned[R * R];
            for (index_t m = 0; m < form.blocks() * form.width; m += R)
                for (index_t c = first; c < last; ++c) {
                    index_t const k = c * R;
                    index_t const columns = minimum(R, form.columns - k);
                    for (index_t i = 0; i < R; ++i) {
                        float* const row = square + i * R;
                        if (m + i < form.rows) {
                            float const* const from = detail::float_span<Arch>(x, m + i, k, k + columns, row);
                            if (from != row) simd::store<Arch>(row, simd::load_partial<Arch>(from, columns));
                        } else {
                            simd::store<Arch>(row, simd::floats<Arch>(0.0f));
                        }
                    }
                    simd::transpose<Arch>(square, R, 1.0f, turned, R);
                    float* const out = const_cast<float*>(form.block(m / form.width)) + k * form.width + m % form.width;
                    for (index_t i = 0; i < columns; ++i)
                        simd::store<Arch>(out + i * form.width, simd::load<Arch>(turned + i * R));
                }
        });
    }
};

/// Rows in another order are read as rows.
template <class Arch, class Parallel, index_t R>
struct kernel<op::gather, cpu<Arch, Parallel>, float_columns<R>> {
    using type = float_columns<R>;
    template <class Arena>
    static type plan(type const& from, index_t rows, Arena&) noexcept {
        return from.slice(0, rows);
    }
    static void run(cpu<Arch, Parallel> const&, type const&, index_t const*, type const&) noexcept {}
};

} // namespace tessera::inline TESSERA_ABI
