// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// y = x W for sparse storage on the CPU, the gradient with respect to the input of y = x Wᵀ; and sparse storage as float32
/// tiles.
///
/// The same panels are walked as in the forward product, and each weight adds to the columns of y that it meets. All of y
/// is computed before the loop over its tiles, in parts that threads share: blocks of rows of x, and, where these are few,
/// runs of rows of W, whose sums are added in order. What a part is depends on the shape alone.

#include "csr.hpp"
#include "decode.hpp"
#include "n_of_m.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Calls to.panel(rows, scales) and to.step(columns, values, count) for the steps of unit i (a window) of compressed rows.
/// rows[r]: row of W of lane r, -1 where there is none; scales may be null; `count` lanes from the first on take part.
template <class Arch, index_t R, class T, class G, class Visitor>
void visit_steps(prepacked<jagged<R>, csr<T, G>> const& w, index_t i, std::byte const* at, Visitor&& to) noexcept {
    alignas(64) std::int32_t columns[R];
    alignas(64) float values[R];
    index_t rows[R];
    w.with_panel_type([&]<class Panel>(Panel) {
        for (index_t p = 0; p < w.window_panels(i); ++p) {
            Panel const panel = Panel::read(at);
            at = panel.next;
            for (index_t r = 0; r < R; ++r) {
                rows[r] = i * w.window_rows() + panel.order[r];
                if (rows[r] >= w.rows()) rows[r] = -1;
            }
            to.panel(rows, w.has_scale ? panel.scales : nullptr);
            auto const* column = panel.columns;
            auto const* value = panel.values;
            index_t j = 0;
            for (index_t c = R; c > 0; --c)
                for (index_t const end = panel.length(c - 1); j < end; ++j, column += c, value += c) {
                    simd::load_columns<Arch>(column).store_aligned(columns);
                    simd::store<Arch>(values, simd::load<Arch>(value));
                    to.step(columns, values, c);
                }
        }
    });
}

/// The same for panel i of N of every M weights; columns of padding lie in [k, groups * M).
template <class Arch, index_t R, index_t N, index_t M, class T, class G, class Visitor>
void visit_steps(prepacked<kept<R>, n_of_m<N, M, T, G>> const& w, index_t i, std::byte const* at, Visitor&& to) noexcept {
    using weights = prepacked<kept<R>, n_of_m<N, M, T, G>>;
    alignas(64) std::int32_t columns[R];
    alignas(64) float values[R];
    index_t rows[R];
    index_t const count = minimum(R, w.rows() - i * R);
    for (index_t r = 0; r < R; ++r) rows[r] = r < count ? i * R + r : -1;
    to.panel(rows, w.has_scale ? reinterpret_cast<float const*>(at) : nullptr);
    std::byte const* record = at + weights::header_bytes;
    for (index_t g = 0; g < w.groups(); ++g) {
        int const within = static_cast<int>(g % weights::record_groups);
        auto const* const value = reinterpret_cast<typename weights::stored_type const*>(record + weights::positions_bytes);
        for (int j = 0; j < static_cast<int>(N); ++j) {
            int const slot = within * static_cast<int>(N) + j;
            simd::ints<Arch> const position = slot_positions<Arch, weights>(record, slot);
            (position + simd::ints<Arch>(static_cast<std::int32_t>(g * M))).store_aligned(columns);
            simd::store<Arch>(values, simd::load<Arch>(value + slot * R));
            to.step(columns, values, count);
        }
        if (within + 1 == static_cast<int>(weights::record_groups)) record += weights::record_bytes(weights::record_groups);
    }
}

/// How a sparse operand is taken apart for both products.
template <class Arch, class Storage>
struct sparse_units : csr_windows<Arch, Storage> {
    static constexpr index_t column_unit = 1;
    static index_t count(auto const& packed) noexcept { return packed.windows(); }
};
template <class Arch, n_of_m_storage Storage>
struct sparse_units<Arch, Storage> : n_of_m_panels<Arch, Storage> {
    static constexpr index_t column_unit = n_of_m_panels<Arch, Storage>::weights::storage::group;
    static index_t count(auto const& packed) noexcept { return packed.panels(); }
};

/// y[m][column] += value * x[first + m][row] for m < count, a few rows of x.
template <class Arch>
class scatter_rows {
    static constexpr index_t R = simd::lanes<Arch>;

public:
    static constexpr index_t most = 4;

    scatter_rows(float_rows<0> const& x, index_t first, index_t count, float* y, index_t stride) noexcept
        : x_{x}, first_{first}, count_{count}, y_{y}, stride_{stride} {}

    void panel(index_t const* rows, float const* scales) noexcept {
        for (index_t m = 0; m < count_; ++m)
            for (index_t r = 0; r < R; ++r)
                input_[m][r] = rows[r] < 0 ? 0.0f : x_.row(first_ + m)[rows[r]] * (scales != nullptr ? scales[r] : 1.0f);
    }
    void step(std::int32_t const* columns, float const* values, index_t count) noexcept {
        alignas(64) float product[R];
        simd::floats<Arch> const value = simd::load<Arch>(values);
        for (index_t m = 0; m < count_; ++m) {
            simd::store<Arch>(product, value * simd::load<Arch>(input_[m]));
            float* const y = y_ + m * stride_;
            for (index_t r = 0; r < count; ++r) y[columns[r]] += product[r];
        }
    }

private:
    float_rows<0> const& x_;
    index_t first_;
    index_t count_;
    float* y_;
    index_t stride_;
    alignas(64) float input_[most][R];
};

/// y[column][...] += value * x[row][...] for a block of rows of x that lie side by side.
template <class Arch>
class scatter_columns {
    static constexpr index_t R = simd::lanes<Arch>;

public:
    scatter_columns(float_columns<R> const& x, index_t block, float* y) noexcept
        : x_{x.block(block)}, y_{y}, width_{x.width}, used_{minimum(x.width, x.rows - block * x.width)} {}

    void panel(index_t const* rows, float const* scales) noexcept {
        for (index_t r = 0; r < R; ++r) {
            row_[r] = x_ + (rows[r] < 0 ? 0 : rows[r]) * width_;
            scale_[r] = scales != nullptr ? scales[r] : 1.0f;
        }
    }
    void step(std::int32_t const* columns, float const* values, index_t count) noexcept {
        for (index_t r = 0; r < count; ++r) {
            simd::floats<Arch> const value(values[r] * scale_[r]);
            float* const y = y_ + columns[r] * width_;
            for (index_t m = 0; m < used_; m += R)
                simd::store<Arch>(y + m, simd::fma(value, simd::load<Arch>(row_[r] + m), simd::load<Arch>(y + m)));
        }
    }

private:
    float const* x_;
    float* y_;
    index_t width_;
    index_t used_;
    float const* row_[R];
    float scale_[R];
};

} // namespace detail

template <class Arch, class Parallel, sparse_storage Storage, class Preparation>
struct kernel<op::apply, cpu<Arch, Parallel>, transposed_operator<linear<Storage, Preparation>>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = transposed_operator<linear<Storage, Preparation>>;
    using units = detail::sparse_units<Arch, Storage>;
    using weights = typename units::weights;
    static constexpr index_t R = simd::lanes<Arch>;
    using rows_form = float_rows<0>;
    using columns_form = float_columns<R>;
    using forms = type_list<rows_form, columns_form>;

    /// y of every part and block of rows of x: (columns, width), or (width, columns) where x is read by rows.
    struct state {
        float* sums;
        std::byte* staging;
        index_t staging_bytes; ///< of a worker
        index_t parts;
        index_t blocks;
        index_t width;
        index_t columns; ///< of y, rounded up: a register may begin at the last
        index_t block_size;
    };

    /// Runs of rows of W for each block: eight units of work at most, of 512 rows at least. A constant of the shape.
    static index_t parts_of(index_t rows, index_t blocks) noexcept {
        return maximum(1, minimum(8 / maximum(blocks, 1), rows / 512));
    }

    template <class Arena>
    static state plan(exec_type const& exec, operand const& t, index_t m, Arena& arena) {
        detail::require_as_is<Preparation>();
        state s{};
        s.width = m < columns_form::fewest_rows ? maximum(m, 1) : columns_form::width_of(m);
        s.blocks = ceil_div(m, s.width);
        s.parts = parts_of(t.cols(), s.blocks);
        s.columns = round_up(t.rows(), maximum(units::column_unit, R)) + R;
        s.block_size = s.columns * s.width;
        s.sums = arena.template carve<float>(s.parts, s.blocks, s.block_size);
        s.staging_bytes = units::scratch_bytes(t.inner().storage());
        s.staging = arena.template carve<std::byte>(maximum(1, exec.parallel().concurrency()), s.staging_bytes);
        return s;
    }

    template <class Inputs>
    static void prepare(exec_type const& exec, operand const& t, Inputs const& inputs, state const& s) noexcept {
        rows_form const& rows = inputs.template get<rows_form>();
        columns_form const& columns = inputs.template get<columns_form>();
        Storage const& w = t.inner().storage();
        weights const packed = units::shape(w);
        index_t const count = units::count(packed);
        parallel_for(exec.parallel(), s.parts * s.blocks, 1, [&](index_t first, index_t last, index_t worker) noexcept {
            for (index_t task = first; task < last; ++task) {
                index_t const part = task / s.blocks;
                index_t const block = task % s.blocks;
                float* const y = s.sums + task * s.block_size;
                for (index_t i = 0; i < s.block_size; ++i) y[i] = 0.0f;
                auto const run = [&](auto&& to) noexcept {
                    for (index_t i = part * count / s.parts; i < (part + 1) * count / s.parts; ++i)
                        detail::visit_steps<Arch>(packed, i, units::stage(w, i, s.staging + worker * s.staging_bytes), to);
                };
                if (columns.exists()) {
                    run(detail::scatter_columns<Arch>{columns, block, y});
                    continue;
                }
                constexpr index_t most = detail::scatter_rows<Arch>::most;
                for (index_t m = 0; m < minimum(s.width, rows.rows - block * s.width); m += most)
                    run(detail::scatter_rows<Arch>{rows, block * s.width + m,
                                                   minimum(most, minimum(s.width, rows.rows - block * s.width) - m),
                                                   y + m * s.columns, s.columns});
            }
        });
    }
    static index_t scratch_bytes(operand const&, tile_size) noexcept { return 0; }

    template <class Inputs>
    static void accumulate(operand const&, Inputs const& inputs, state const& s, product_task const& task,
                           std::byte*) noexcept {
        columns_form const& x = inputs.template get<columns_form>();
        index_t const part_size = s.blocks * s.block_size;
        auto const sum = [&](float const* from) noexcept {
            simd::floats<Arch> total = simd::load<Arch>(from);
            for (index_t p = 1; p < s.parts; ++p) total = total + simd::load<Arch>(from + p * part_size);
            return total;
        };
        if (!x.exists()) {
            for (index_t m = task.m0; m < task.m1; ++m)
                for (index_t n = task.n0; n < task.n1; n += R)
                    detail::add_to_task<Arch>(task, m, n, sum(s.sums + m / s.width * s.block_size + m % s.width * s.columns + n));
            return;
        }
        alignas(64) float square[R * R];
        alignas(64) float turned[R * R];
        for (index_t m0 = task.m0 / R * R; m0 < task.m1; m0 += R)
            for (index_t n = task.n0; n < task.n1; n += R) {
                float const* const from = s.sums + m0 / s.width * s.block_size + n * s.width + m0 % s.width;
                for (index_t i = 0; i < R; ++i) simd::store<Arch>(square + i * R, sum(from + i * s.width));
                simd::transpose<Arch>(square, R, 1.0f, turned, R);
                for (index_t m = maximum(m0, task.m0); m < minimum(m0 + R, task.m1); ++m)
                    detail::add_to_task<Arch>(task, m, n, simd::load<Arch>(turned + (m - m0) * R));
            }
    }

    static std::string describe(operand const& t, index_t m) {
        return "transposed " + kernel<op::apply, exec_type, linear<Storage, Preparation>>::describe(t.inner(), m) +
               ", added to columns of y";
    }
};

/// out(n - n0, k - k0) = W(n, k) for the tile [n0, n1) x [k0, k1), rows of out `stride` apart.
template <class Arch, class Parallel, sparse_storage Storage>
struct kernel<op::decode, cpu<Arch, Parallel>, Storage> {
    static index_t scratch_bytes(Storage const&) noexcept { return 0; }
    static void tile(Storage const& w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride,
                     std::byte*) noexcept {
        for (index_t n = n0; n < n1; ++n) {
            float* const row = out + (n - n0) * stride;
            for (index_t k = k0; k < k1; ++k) row[k - k0] = 0.0f;
            w.for_each_entry(n, [&](index_t k, float weight) {
                if (k >= k0 && k < k1) row[k - k0] = weight;
            });
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
