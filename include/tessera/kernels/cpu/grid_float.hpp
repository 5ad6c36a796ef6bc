// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// float32 products of grids of 256 points (storage/grid_panels.hpp): the decoder of their panels, and, for points of four and
/// eight numbers, few rows of x and AVX-512 VBMI, a product without it. The 256 dot products of all points with a part of x are
/// tabled once, as planes of bytes; a code's four bytes are looked up 64 rows at a time and interleaved, which makes floats again:
///
///     acc[m][n] += factor * sum over groups g of scale[n][g] * sum over codes of g of table[m][code]
///
/// 64 codes take 20 permutations, whatever their dimension; gathers take twice that for each number of a point.

#include "../../simd/byte_lookup.hpp"
#include "../../storage/grid_panels.hpp"
#include "vector.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Placed codes as float32 columns.
template <class Arch, class Storage>
struct panel_decoder<Arch, prepacked<grid_panels, Storage>> {
    using weights = prepacked<grid_panels, Storage>;
    using floats = simd::floats<Arch>;
    static constexpr bool is_placed = true;
    static constexpr index_t R = simd::lanes<Arch>;
    static constexpr index_t dims = weights::dims;

    static weights shape(weights const& w, std::byte const* data) noexcept { return weights{data, w}; }
    static index_t scratch_bytes(weights const&) noexcept { return 0; }
    panel_decoder(weights const& w, std::byte*) noexcept : w_{w} {}
    void start(index_t p) noexcept { start_at(w_.panel_data(p * R / weights::panel_rows), p); }
    /// `panel` has 64 rows, some of which are those of R rows p.
    void start_at(std::byte const* panel, index_t p) noexcept {
        panel_ = panel;
        row_ = p * R % weights::panel_rows;
    }
    void decode(index_t k0, index_t k1, float* out) const noexcept {
        auto const* const grid = reinterpret_cast<float const*>(w_.data());
        auto const* const scales = reinterpret_cast<typename weights::stored_scale const*>(panel_) + row_;
        std::byte const* const codes = panel_ + w_.code_offset() + weights::place(row_);
        for (index_t k = k0; k < k1;) {
            index_t const g = k / w_.group();
            index_t const end = minimum(k1, (g + 1) * w_.group());
            floats const scale = simd::load<Arch>(scales + g * weights::panel_rows);
            for (; k < end; k += dims) {
                std::byte const* const code = codes + k / dims * weights::panel_rows;
                simd::prefetch(code + prefetch_distance);
                simd::ints<Arch> const at = simd::widen_rows<Arch>(code) * simd::ints<Arch>(static_cast<std::int32_t>(dims));
#pragma GCC unroll 8
                for (index_t d = 0; d < dims; ++d) simd::store<Arch>(out + (k - k0 + d) * R, simd::gather<Arch>(grid + d, at, R) * scale);
            }
        }
    }
    static std::string name(weights const&) { return "8-bit codes of " + std::to_string(dims) + "-vectors, grid_panels"; }

private:
    weights w_;
    std::byte const* panel_ = nullptr;
    index_t row_ = 0;
};

/// Canonical codes of points of four and more numbers are packed when their turn comes.
template <class Arch, wide_grid_storage Storage>
    requires(!requires { typename Storage::layout; })
struct panel_decoder<Arch, Storage> : packing_decoder<Arch, Storage, prepacked<grid_panels, Storage>> {
    using packing_decoder<Arch, Storage, prepacked<grid_panels, Storage>>::packing_decoder;
};

#if defined(__AVX512VBMI__)
/// One row of x by panels of a grid, through tables.
template <class Arch, class Weights>
struct grid_tables {
    using floats = simd::floats<Arch>;
    static constexpr index_t rows = Weights::panel_rows;
    static constexpr index_t dims = Weights::dims;
    static constexpr index_t table_bytes = 1024;

    Weights const& w;

    /// The grid by component, points in the order of tables' registers.
    template <class Storage>
    static void components(Storage const& from, float* out) noexcept {
        for (index_t c = 0; c < 256; ++c)
            for (index_t d = 0; d < dims; ++d)
                out[256 * d + c / 64 * 64 + c % 4 * 16 + c % 64 / 4] =
                    from.table_value(0, 0, static_cast<std::uint32_t>(c), static_cast<int>(d));
    }
    /// The tables of codes [j0, j1).
    void table(float const* x, float const* points, index_t j0, index_t j1, std::byte* tables) const noexcept {
        for (index_t j = j0; j < j1; ++j) {
            float here[dims] = {};
            for (index_t d = 0; d < minimum(dims, w.cols() - j * dims); ++d) here[d] = x[j * dims + d];
            simd::float_tables<Arch, static_cast<int>(dims)>(points, here, tables + j * table_bytes);
        }
    }
    template <int P>
    void look_up(std::byte const* const (&panel)[P], std::byte const* tables, product_task const& task, index_t m, index_t first) const noexcept {
        floats result[P][4];
        for (auto& p : result)
            for (floats& r : p) r = floats(0.0f);
        for (index_t k0 = 0; k0 < w.cols(); k0 += w.group()) {
            floats sum[P][4];
            for (auto& p : sum)
                for (floats& s : p) s = floats(0.0f);
            index_t const end = ceil_div(minimum(k0 + w.group(), w.cols()), dims);
            for (index_t j = k0 / dims; j < end; ++j)
#pragma GCC unroll 2
                for (int p = 0; p < P; ++p) {
                    std::byte const* const codes = panel[p] + w.code_offset() + j * rows;
                    simd::prefetch(codes + prefetch_distance);
                    simd::add_looked_up<Arch>(simd::byte_codes{codes}, tables + j * table_bytes, sum[p]);
                }
            for (int p = 0; p < P; ++p) {
                simd::in_rows<Arch>(sum[p]);
                for (int i = 0; i < 4; ++i) {
                    auto const* const scales = reinterpret_cast<typename Weights::stored_scale const*>(panel[p]) + k0 / w.group() * rows;
                    result[p][i] = simd::fma(sum[p][i], simd::load<Arch>(scales + 16 * i), result[p][i]);
                }
            }
        }
        for (int p = 0; p < P; ++p)
            for (int i = 0; i < 4; ++i) add_to_task<Arch>(task, m, first + p * rows + 16 * i, result[p][i]);
    }
};
#endif

} // namespace detail

template <class Arch, class Parallel, detail::wide_grid_storage Storage>
    requires(tile_storage<Storage> && simd::looks_up_bytes<Arch> &&
             std::same_as<typename detail::panel_decoder<Arch, Storage>::weights::layout, grid_panels>)
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, as_is>> : detail::tile_product<Arch, Parallel, Storage, as_is> {
#if defined(__AVX512VBMI__)
    using base = detail::tile_product<Arch, Parallel, Storage, as_is>;
    using typename base::decoder;
    using typename base::exec_type;
    using typename base::operand;
    using weights = typename decoder::weights;
    using tables = detail::grid_tables<Arch, weights>;
    static constexpr index_t rows = tables::rows;
    /// x's tables, and the grid by component; null with many rows of x.
    struct state {
        std::byte* tables = nullptr;
        float* points = nullptr;
    };
    /// Fewest rows of W that pay for tables, which are to stay in the cache.
    static constexpr index_t least_rows = 512;
    static bool uses_tables(operand const& w, index_t m) noexcept {
        return m <= base::few_rows && w.rows() >= least_rows && w.cols() > 0 && m * packed(w).vectors() * tables::table_bytes <= config::level_2_bytes;
    }
    template <class Arena>
    static state plan(exec_type const& exec, operand const& w, index_t m, Arena& arena) {
        base::plan(exec, w, m, arena);
        state s;
        if (!uses_tables(w, m)) return s;
        s.tables = arena.template carve<std::byte>(m, packed(w).vectors(), tables::table_bytes);
        s.points = arena.template carve<float>(256, weights::dims);
        return s;
    }
    template <class Inputs>
    static void prepare(exec_type const& exec, operand const& w, Inputs const& inputs, state const& s) noexcept {
        if (s.tables == nullptr) return;
        auto const& x = inputs.template get<typename base::form>();
        weights const shape = packed(w);
        tables::components(w.storage(), s.points);
        for (index_t m = 0; m < x.rows; ++m)
            parallel_for(exec.parallel(), shape.vectors(), 128, [&](index_t first, index_t last, index_t) noexcept {
                tables{shape}.table(x.row(m), s.points, first, last, s.tables + m * shape.vectors() * tables::table_bytes);
            });
    }
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept {
        return maximum(base::scratch_bytes(w, tile), decoder::is_placed ? 0 : round_up(packed(w).panel_bytes(), 64));
    }
    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const& s, product_task const& task, std::byte* scratch) noexcept {
        if (s.tables == nullptr) return base::accumulate(w, inputs, {}, task, scratch);
        weights const shape = packed(w);
        index_t const last = ceil_div(task.n1, rows);
        for (index_t b = task.n0 / rows; b < last;) {
            bool const are_two = decoder::is_placed && b + 1 < last;
            std::byte const* panel = scratch;
            if constexpr (decoder::is_placed)
                panel = shape.panel_data(b);
            else
                pack_panel(w.storage(), shape, b, scratch);
            for (index_t m = task.m0; m < task.m1; ++m) {
                std::byte const* const table = s.tables + m * shape.vectors() * tables::table_bytes;
                if (are_two)
                    tables{shape}.template look_up<2>({panel, panel + shape.panel_bytes()}, table, task, m, b * rows);
                else
                    tables{shape}.template look_up<1>({panel}, table, task, m, b * rows);
            }
            b += are_two ? 2 : 1;
        }
    }
    static std::string describe(operand const& w, index_t m) {
        if (!uses_tables(w, m)) return base::describe(w, m);
        return decoder::name(w.storage()) + ", look-ups in tables of dot products";
    }

private:
    static weights packed(operand const& w) noexcept {
        if constexpr (decoder::is_placed)
            return w.storage();
        else
            return decoder::shape(w.storage(), nullptr);
    }
#endif
};

} // namespace tessera::inline TESSERA_ABI
