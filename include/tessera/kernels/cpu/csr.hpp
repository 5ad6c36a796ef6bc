// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of compressed rows with x on the CPU. Bytes and work at M = 1, fp16 values, a nonzero: 4 bytes (value, 16-bit
/// column), a sixteenth of a gather (10 to 11 cycles) and of a multiply-add: memory at 15 GB/s and the gather take equally
/// long.
///
/// * Few rows of x: a lane is a row of W, and elements of x are gathered.
/// * From `float_columns::fewest_rows` on: a weight multiplies a register of rows of x, which lie side by side. A register
///   for each row of the panel adds up; with more rows of x, fewer rows of the panel at a time.
///
/// Either way a sum runs over the row's entries in their order, each step one multiply-add: a row of y has the same bits
/// whatever else is in the batch.

#include "../../simd/reduce.hpp"
#include "../../simd/sparse.hpp"
#include "../sparse_operand.hpp"
#include "apply.hpp"
#include "sparse_pack.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The placed form of compressed rows on an architecture.
template <class Arch, class Storage>
struct jagged_form {};
template <class Arch, class T, class G>
struct jagged_form<Arch, csr<T, G>> {
    using type = prepacked<jagged<simd::lanes<Arch>>, csr<T, G>>;
    static constexpr bool is_placed = false;
};
template <class Arch, index_t R, class T, class G>
struct jagged_form<Arch, prepacked<jagged<R>, csr<T, G>>> {
    static_assert(R == simd::lanes<Arch>,
                  "tessera: this operand was placed for another architecture; place it with the policy that applies it");
    using type = prepacked<jagged<R>, csr<T, G>>;
    static constexpr bool is_placed = true;
};

template <class Storage>
inline constexpr bool is_csr = false;
template <class T, class G>
inline constexpr bool is_csr<csr<T, G>> = true;
template <index_t R, class T, class G>
inline constexpr bool is_csr<prepacked<jagged<R>, csr<T, G>>> = true;

/// Compressed rows, canonical or placed.
template <class Storage>
concept csr_storage = is_csr<Storage>;

/// A window in panels: placed, or packed into scratch.
template <class Arch, class Storage>
struct csr_windows {
    using form = jagged_form<Arch, Storage>;
    using weights = typename form::type;

    static weights shape(Storage const& w) noexcept {
        if constexpr (form::is_placed)
            return w;
        else
            return {nullptr, 0, w.nonzeros(), w.rows(), w.cols()};
    }
    static index_t scratch_bytes(Storage const& w) noexcept {
        index_t most = 0;
        if constexpr (!form::is_placed) {
            weights const packed = shape(w);
            for (index_t i = 0; i < packed.windows(); ++i) most = maximum(most, window_nonzeros(w, packed, i));
            most = round_up(packed.window_bytes(most) + weights::slack, config::cache_line);
        }
        return most;
    }
    static std::byte const* stage(Storage const& w, index_t i, std::byte* scratch) noexcept {
        if constexpr (form::is_placed) {
            static_cast<void>(scratch);
            return w.window(i);
        } else {
            pack_window(w, shape(w), i, scratch);
            return scratch;
        }
    }
};

/// Bytes ahead of a step that are asked for, of columns and of values: measured; 5% faster than twice as far.
inline constexpr index_t jagged_prefetch = 2048;

/// sum[m] = the lanes' rows times row m of x.
template <class Arch, class Panel, int MR>
TESSERA_FORCE_INLINE void multiply_gathered(Panel const& panel, float const* const (&x)[MR],
                                            simd::floats<Arch> (&sum)[MR]) noexcept {
    constexpr index_t R = simd::lanes<Arch>;
    auto const* columns = panel.columns;
    auto const* values = panel.values;
    auto const step = [&](index_t count) noexcept {
        simd::ints<Arch> const column = simd::load_columns<Arch>(columns);
        simd::floats<Arch> value = simd::load<Arch>(values);
        if (count < R) value = simd::keep_first<Arch>(value, count, 0.0f);
        simd::prefetch(reinterpret_cast<std::byte const*>(columns) + jagged_prefetch);
        simd::prefetch(reinterpret_cast<std::byte const*>(values) + jagged_prefetch);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) sum[m] = simd::fma(value, simd::gather<Arch>(x[m], column, count), sum[m]);
        columns += count;
        values += count;
    };
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) sum[m] = simd::floats<Arch>(0.0f);
    index_t j = 0;
    for (index_t const end = panel.length(R - 1); j < end; ++j) step(R);
    for (index_t const end = panel.length(0); j < end; ++j) step(simd::count_above<Arch>(panel.lengths, j));
}

/// out[order of lane][...] = L lanes' rows from lane `first` on, times G registers of rows of x, which lie `width` apart.
template <class Arch, int L, int G, class Panel>
TESSERA_FORCE_INLINE void multiply_broadcast(Panel const& panel, index_t first, float const* x, index_t width,
                                             float* out) noexcept {
    constexpr index_t R = simd::lanes<Arch>;
    using floats = simd::floats<Arch>;
    auto const* columns = panel.columns;
    auto const* values = panel.values;
    alignas(64) float value[R];
    floats sum[L][G];
    for (auto& row : sum)
        for (floats& s : row) s = floats(0.0f);
    auto const step = [&](index_t count) noexcept {
        simd::store<Arch>(value, simd::load<Arch>(values));
        simd::prefetch(reinterpret_cast<std::byte const*>(columns) + jagged_prefetch);
        simd::prefetch(reinterpret_cast<std::byte const*>(values) + jagged_prefetch);
#pragma GCC unroll 16
        for (int r = 0; r < L; ++r)
            if (count == R || first + r < count) {
                float const* const from = x + static_cast<index_t>(columns[first + r]) * width;
                floats const v(value[first + r]);
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) sum[r][g] = simd::fma(v, simd::load<Arch>(from + g * R), sum[r][g]);
            }
        columns += count;
        values += count;
    };
    index_t j = 0;
    for (index_t const end = panel.length(R - 1); j < end; ++j) step(R);
    for (index_t c = R - 1; c > first; --c)
        for (index_t const end = panel.length(c - 1); j < end; ++j) step(c);
#pragma GCC unroll 16
    for (int r = 0; r < L; ++r) {
        float* const to = out + panel.order[first + r] * width;
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            if constexpr (Panel::has_scale) sum[r][g] = sum[r][g] * floats(panel.scales[first + r]);
            simd::store<Arch>(to + g * R, sum[r][g]);
        }
    }
}

} // namespace detail

template <class Arch, class Parallel, detail::csr_storage Storage, class Preparation>
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, Preparation>;
    using staged = detail::csr_windows<Arch, Storage>;
    using weights = typename staged::weights;
    static constexpr index_t R = simd::lanes<Arch>;
    using rows_form = float_rows<0>;
    using columns_form = float_columns<R>;
    using forms = type_list<rows_form, columns_form>;
    struct state {};
    static constexpr int gathered_rows = static_cast<int>(columns_form::fewest_rows);

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        detail::require_as_is<Preparation>();
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}

    /// A packed window where the operand is not placed, and a window of y, turned.
    static index_t scratch_bytes(operand const& w, tile_size) noexcept {
        return staged::scratch_bytes(w.storage()) + 64 * 4 * R * static_cast<index_t>(sizeof(float));
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task,
                           std::byte* scratch) noexcept {
        columns_form const& columns = inputs.template get<columns_form>();
        weights const packed = staged::shape(w.storage());
        auto* const turned = reinterpret_cast<float*>(scratch + staged::scratch_bytes(w.storage()));
        for (index_t i = task.n0 / packed.window_rows(); i * packed.window_rows() < task.n1; ++i) {
            std::byte const* const data = staged::stage(w.storage(), i, scratch);
            packed.with_panel_type([&]<class Panel>(Panel) {
                if (columns.exists())
                    multiply_columns<Panel>(packed, i, data, columns, task, turned);
                else
                    multiply_rows<Panel>(packed, i, data, inputs.template get<rows_form>(), task);
            });
        }
    }

    static std::string describe(operand const&, index_t m) {
        return std::string{"csr "} + detail::sparse_value<typename weights::storage::value_type>::name + ", jagged<" +
               std::to_string(R) + ">" + (staged::form::is_placed ? "" : " packed on the fly") +
               (m < columns_form::fewest_rows ? ", float multiply-add on gathered x" : ", float multiply-add on columns of x");
    }

private:
    template <class Panel>
    static void multiply_rows(weights const& packed, index_t window, std::byte const* data, rows_form const& x,
                              product_task const& task) noexcept {
        index_t const first = window * packed.window_rows();
        detail::for_row_blocks<gathered_rows>(task.m0, task.m1, [&]<int MR>(index_t m) {
            alignas(64) float y[MR][64];
            alignas(64) float lane[R];
            float const* row[MR];
            for (int i = 0; i < MR; ++i) row[i] = x.row(m + i);
            std::byte const* at = data;
            index_t const panels = packed.window_panels(window);
            for (index_t p = 0; p < panels; ++p) {
                Panel const panel = Panel::read(at);
                at = panel.next;
                simd::floats<Arch> sum[MR];
                detail::multiply_gathered<Arch, Panel, MR>(panel, row, sum);
                for (int i = 0; i < MR; ++i) {
                    if constexpr (weights::has_scale) sum[i] = sum[i] * simd::load<Arch>(panel.scales);
                    simd::store<Arch>(lane, sum[i]);
                    for (index_t r = 0; r < R; ++r) y[i][panel.order[r]] = lane[r];
                }
            }
            // Sorting mixes the rows of all panels of a window, and panels have all of their rows in it.
            for (int i = 0; i < MR; ++i)
                for (index_t r = 0; r < panels * R; r += R)
                    detail::add_to_task<Arch>(task, m + i, first + r, simd::load<Arch>(y[i] + r));
        });
    }

    template <class Panel, int L, int G>
    static void panels_by_columns(weights const& packed, index_t window, std::byte const* at, float const* x, index_t width,
                                  float* turned) noexcept {
        for (index_t p = 0; p < packed.window_panels(window); ++p) {
            Panel const panel = Panel::read(at);
            at = panel.next;
            for (index_t lane = 0; lane < R; lane += L)
                detail::multiply_broadcast<Arch, L, G>(panel, lane, x, width, turned);
        }
    }

    template <class Panel>
    static void multiply_columns(weights const& packed, index_t window, std::byte const* data, columns_form const& x,
                                 product_task const& task, float* turned) noexcept {
        index_t const first = window * packed.window_rows();
        alignas(64) float square[R * R];
        for (index_t b = task.m0 / x.width; b * x.width < task.m1; ++b) {
            index_t const rows = minimum(x.width, task.m1 - b * x.width);
            if (rows <= R)
                panels_by_columns<Panel, R, 1>(packed, window, data, x.block(b), x.width, turned);
            else if (rows <= 2 * R)
                panels_by_columns<Panel, R / 2, 2>(packed, window, data, x.block(b), x.width, turned);
            else
                panels_by_columns<Panel, R / 4, 4>(packed, window, data, x.block(b), x.width, turned);
            for (index_t r = 0; r < packed.window_panels(window) * R; r += R)
                for (index_t g = 0; g < rows; g += R) {
                    simd::transpose<Arch>(turned + r * x.width + g, x.width, 1.0f, square, R);
                    for (index_t i = 0; i < minimum(R, rows - g); ++i)
                        if (index_t const m = b * x.width + g + i; m >= task.m0)
                            detail::add_to_task<Arch>(task, m, first + r, simd::load<Arch>(square + i * R));
                }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
