// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Integer products of grids of 256 points (storage/grid_panels.hpp) with int8 rows of x. Columns are cut into segments that lie in
/// one group of the weights and under one scale of x, of at most 256 codes and 1024 columns:
///
///     acc[m][n] += factor * sum over segments s of scale[n][s] unit * xscale[m][s] * sum over k in s of q[code][d] xq[m][k]
///
/// Integers are exact and segments are added in order, so the result does not depend on which of three ways is taken:
///
/// * one row of x (two where tables are small) and AVX-512 VBMI: the 256 dot products of all points with x's part are tabled once,
///   in 2 (two dimensions) or 3 bytes, and looked up 64 rows at a time: 16 or 24 instructions for 64 codes, none a multiplication;
/// * at least 16 rows and matrix tiles: 64 rows of a segment become bytes, which the tiles take 16 by 64 at a time;
/// * else the same bytes by dot products.

#include "grid_float.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Canonical codes: their panels.
template <class Arch, class Storage>
struct grid_packing {
    using weights = prepacked<grid_panels, Storage>;
    static constexpr bool is_placed = false;
    static weights shape(Storage const& w, std::byte const* data) noexcept { return weights{data, w}; }
    static std::string name(Storage const& w) { return panel_decoder<Arch, weights>::name(shape(w, nullptr)) + " packed on the fly"; }
};
template <class Arch, class Storage>
struct grid_packing<Arch, prepacked<grid_panels, Storage>> : panel_decoder<Arch, prepacked<grid_panels, Storage>> {};

/// What a grid's integer product is made of, for panels of `Weights` and x as `Form`.
template <class Arch, class Weights, class Form>
struct grid_product {
    using floats = simd::floats<Arch>;
    using ints = simd::ints<Arch>;
    static constexpr index_t R = simd::lanes<Arch>;
    static constexpr index_t rows = Weights::panel_rows;
    static constexpr index_t dims = Weights::dims;
    /// Columns of a segment at most; a power of two times dims.
    static constexpr index_t longest = minimum(256 * dims, 1024);
    static constexpr index_t codes_bytes = rows * longest;
    /// A point times a part of x, shifted, is in [0, 2 bias].
    static constexpr std::int32_t bias = static_cast<std::int32_t>(dims) * 127 * 127;
    static constexpr int planes = 2 * bias < 1 << 16 ? 2 : 3;
    static constexpr index_t table_bytes = planes * 256;

    Weights const& w;
    std::byte const* shared;
    Form const& x;

    index_t segment_end(index_t k) const noexcept {
        index_t end = minimum(minimum(k + longest, w.cols()), (k / w.group() + 1) * w.group());
        if constexpr (Form::scale_group > 0) end = minimum(end, (k / Form::scale_group + 1) * Form::scale_group);
        return end;
    }
    std::byte const* codes(std::byte const* panel, index_t k) const noexcept { return panel + w.code_offset() + k / dims * rows; }
    floats scales(std::byte const* panel, index_t k, index_t first) const noexcept {
        float unit;
        std::memcpy(&unit, shared + Weights::unit_offset, sizeof unit);
        auto const* const p = reinterpret_cast<typename Weights::stored_scale const*>(panel) + k / w.group() * rows + first;
        return simd::load<Arch>(p) * floats(unit);
    }
    /// result += a segment's sums of row m of x; `scale` of the rows.
    TESSERA_FORCE_INLINE void add(ints const& sum, index_t m, index_t k, floats const& scale, float* result) const noexcept {
        floats value = xsimd::to_float(sum);
        if constexpr (Form::scale_group > 0) value = value * floats(x.scale(m, k / Form::scale_group));
        simd::store<Arch>(result, simd::fma(value, scale, simd::load<Arch>(result)));
    }
    /// Adds the 64 results of row m to what the task has.
    void emit(product_task const& task, index_t m, index_t first, float const* result) const noexcept {
        for (index_t r = 0; r < rows; r += R) {
            floats value = simd::load<Arch>(result + r);
            if constexpr (Form::scale_group == 0) value = value * floats(x.scale(m, 0));
            add_to_task<Arch>(task, m, first + r, value);
        }
    }

#if defined(__AVX512VBMI__)
    /// The tables of codes [j0, j1) of row m.
    void table(index_t m, index_t j0, index_t j1, std::byte* tables) const noexcept {
        for (index_t j = j0; j < j1; ++j) {
            std::int32_t words[Weights::quads] = {};
            std::memcpy(words, x.row(m) + j * dims, static_cast<std::size_t>(dims));
            std::int32_t sum = 0;
            for (index_t d = 0; d < dims; ++d) sum += x.row(m)[j * dims + d];
            simd::point_tables<Arch, static_cast<int>(Weights::quads), planes>(shared + Weights::quads_offset, words, sum, bias,
                                                                               tables + j * table_bytes);
        }
    }
    /// Row m of x by P panels, through its tables.
    template <int P>
    void look_up(std::byte const* const (&panel)[P], index_t m, std::byte const* tables, product_task const& task, index_t first) const noexcept {
        alignas(64) float result[P][rows] = {};
        for (index_t k0 = 0; k0 < w.cols();) {
            index_t const k1 = segment_end(k0);
            index_t const count = ceil_div(k1 - k0, dims);
            std::byte const* const table = tables + k0 / dims * table_bytes;
            std::byte const* code[P];
            for (int p = 0; p < P; ++p) code[p] = codes(panel[p], k0);
            simd::byte_sums<planes> sums[P];
            for (index_t j = 0; j < count; ++j)
#pragma GCC unroll 2
                for (int p = 0; p < P; ++p) {
                    simd::prefetch(code[p] + j * rows + prefetch_distance);
                    sums[p].add(simd::byte_codes{code[p] + j * rows}, table + j * table_bytes);
                }
            for (int p = 0; p < P; ++p) {
                ints sum[4];
                sums[p].template finish<Arch>(static_cast<std::int32_t>(count) * bias, sum);
                for (int i = 0; i < 4; ++i) add(sum[i], m, k0, scales(panel[p], k0, 16 * i), result[p] + 16 * i);
            }
            k0 = k1;
        }
        for (int p = 0; p < P; ++p) emit(task, m, first + p * rows, result[p]);
    }
#endif

    /// Columns [k0, k1) of a panel as bytes: for R rows each, quads of columns, R rows x 4. `stride` from R rows to the next.
    template <bool IsUnsigned>
    void decode(std::byte const* panel, index_t k0, index_t k1, std::byte* out, index_t stride) const noexcept {
        std::byte const* const code = codes(panel, k0);
        index_t const count = ceil_div(k1 - k0, dims);
#if defined(__AVX512VBMI__)
        if constexpr (simd::looks_up_bytes<Arch>)
            return simd::quads_of_points<static_cast<int>(dims), IsUnsigned>(code, count, shared + Weights::bytes_offset, out, stride);
#endif
        static_assert(IsUnsigned || simd::looks_up_bytes<Arch>);
        constexpr index_t part = minimum(dims, 4);
        std::byte const* const quads = shared + Weights::quads_offset;
        for (index_t r = 0; r < rows; ++r) {
            std::byte* const row = out + r / R * stride + r % R * 4;
            for (index_t j = 0; j < count; ++j) {
                auto const c = static_cast<index_t>(code[j * rows + Weights::place(r)]);
                std::byte const* const point = quads + (c / 64 * 64 + c % 4 * 16 + c % 64 / 4) * 4;
                for (index_t d = 0; d < dims; d += 4) {
                    index_t const column = j * dims + d;
                    std::memcpy(row + column / 4 * R * 4 + column % 4, point + d * 256, static_cast<std::size_t>(part));
                }
            }
            if (count * dims % 4 != 0) std::memset(row + count * dims / 4 * R * 4 + 2, 0, 2);
        }
    }

    /// Rows of x by dot products with the bytes of [k0, k1).
    void dots(std::byte const* panel, index_t k0, index_t k1, product_task const& task, index_t first, std::byte* bytes, float* results) const noexcept {
        index_t const quads = ceil_div(ceil_div(k1 - k0, dims) * dims, 4);
        decode<true>(panel, k0, k1, bytes, quads * 4 * R);
        for_row_blocks<row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
            std::int32_t correction[MR];
            for (int i = 0; i < MR; ++i) {
                std::int32_t sum = 0;
                for (index_t k = k0; k < k1; ++k) sum += x.row(m + i)[k];
                correction[i] = 128 * sum;
            }
            for (index_t r = 0; r < rows; r += R) {
                if (first + r + R <= task.n0 || first + r >= task.n1) continue;
                ints sum[MR];
                for (int i = 0; i < MR; ++i) sum[i] = ints(-correction[i]);
                std::byte const* const code = bytes + r / R * quads * 4 * R;
                for (index_t q = 0; q < quads; ++q) {
                    ints const four = simd::load_bytes<Arch>(code + q * 4 * R);
#pragma GCC unroll 8
                    for (int i = 0; i < MR; ++i)
                        sum[i] = simd::dot4<8, Arch>(sum[i], four, simd::broadcast_bytes4<Arch>(x.row(m + i) + k0 + 4 * q));
                }
                floats const scale = scales(panel, k0, r);
                for (int i = 0; i < MR; ++i) add(sum[i], m + i, k0, scale, results + (m + i - task.m0) * rows + r);
            }
        });
    }

#if defined(__AMX_INT8__) && defined(__linux__)
    /// The same by tiles, for at least 16 rows of x and k0 a multiple of 64.
    void tiles(std::byte const* panel, index_t k0, index_t k1, product_task const& task, std::byte* bytes, float* results) const noexcept {
        index_t const steps = ceil_div(k1 - k0, 64);
        index_t const stride = steps * 1024;
        index_t const quads = ceil_div(ceil_div(k1 - k0, dims) * dims, 4);
        decode<false>(panel, k0, k1, bytes, stride);
        if (quads < steps * 16)
            for (index_t i = 0; i < 4; ++i)
                std::memset(bytes + i * stride + quads * 64, 0, static_cast<std::size_t>(stride - quads * 64));
        alignas(64) std::int32_t sums[4][256];
        for (index_t m = task.m0; m < task.m1; m += 32) {
            // The last 16 rows start early; what they have in common with those before is added once.
            index_t const from[2] = {minimum(m, task.m1 - 16), minimum(m + 16, task.m1 - 16)};
            std::int8_t const* const a[2] = {x.row(from[0]) + k0, x.row(from[1]) + k0};
            bool const are_two = m + 16 < task.m1;
            for (index_t r = 0; r < rows; r += 32) {
                std::byte const* const b[2] = {bytes + r / 16 * stride, bytes + (r / 16 + 1) * stride};
                if (are_two)
                    simd::multiply_tiles<2>(a, Form::stride_of(x.columns), b, steps, sums[0]);
                else
                    simd::multiply_tiles<1>({a[0]}, Form::stride_of(x.columns), b, steps, sums[0]);
                for (int j = 0; j < 2; ++j) {
                    floats const scale = scales(panel, k0, r + 16 * j);
                    for (int i = 0; i < (are_two ? 2 : 1); ++i)
                        for (index_t row = m + 16 * i; row < minimum(from[i] + 16, m + 16 * i + 16); ++row)
                            add(ints::load_aligned(sums[2 * i + j] + (row - from[i]) * 16), row, k0, scale,
                                results + (row - task.m0) * rows + r + 16 * j);
                }
            }
        }
    }
#endif

    /// Rows of x by a panel.
    void many(std::byte const* panel, product_task const& task, index_t first, bool by_tiles, std::byte* scratch) const noexcept {
        auto* const results = reinterpret_cast<float*>(scratch + codes_bytes);
        for (index_t i = 0; i < (task.m1 - task.m0) * rows; ++i) results[i] = 0.0f;
        for (index_t k0 = 0; k0 < w.cols();) {
            index_t const k1 = segment_end(k0);
#if defined(__AMX_INT8__) && defined(__linux__)
            if constexpr (has_tiles) {
                if (by_tiles) {
                    tiles(panel, k0, k1, task, scratch, results);
                    k0 = k1;
                    continue;
                }
            }
#endif
            static_cast<void>(by_tiles);
            dots(panel, k0, k1, task, first, scratch, results);
            k0 = k1;
        }
        for (index_t m = task.m0; m < task.m1; ++m) emit(task, m, first, results + (m - task.m0) * rows);
    }

#if defined(__AMX_INT8__) && defined(__linux__)
    static constexpr bool has_tiles = std::is_base_of_v<avx512_amx, Arch> && simd::looks_up_bytes<Arch>;
#else
    static constexpr bool has_tiles = false;
#endif
    /// Tiles read 64 columns of x from a segment's first on: whole ones, but at the end of a row, which is padded.
    static bool allows_tiles(Weights const& w, index_t m) noexcept {
        bool const whole = (w.group() % 64 == 0 || w.group() >= w.cols()) && Form::scale_group % 64 == 0;
        return has_tiles && m >= 16 && whole && simd::amx_is_allowed();
    }
};

} // namespace detail

template <class Arch, class Parallel, detail::byte_grid_storage Storage, class Preparation>
    requires(tile_storage<Storage> && detail::activation_group<Preparation> >= 0)
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, Preparation>;
    using decoder = detail::grid_packing<Arch, Storage>;
    using weights = typename decoder::weights;
    using form = int8_rows<detail::activation_group<Preparation>, 32>;
    using forms = type_list<form>;
    using product = detail::grid_product<Arch, weights, form>;
    /// Of canonical storage what panels share; the tables of x, where there are some.
    struct state {
        std::byte* shared = nullptr;
        std::byte* tables = nullptr;
    };
    /// Most rows of x that are tabled, fewest rows of W that pay for it, and bytes of tables that stay in the cache meanwhile.
    static constexpr index_t table_rows = weights::dims > 2 ? 2 : 1;
    static constexpr index_t least_rows = 512;
    static bool uses_tables(operand const& w, index_t m) noexcept {
        if constexpr (!simd::looks_up_bytes<Arch>) return false;
        return m <= table_rows && w.rows() >= least_rows && m * shape(w).vectors() * product::table_bytes <= config::level_2_bytes;
    }

    template <class Arena>
    static state plan(exec_type const&, operand const& w, index_t m, Arena& arena) {
        state s;
        if constexpr (!decoder::is_placed) s.shared = arena.template carve<std::byte>(weights::all_shared_bytes);
        if (uses_tables(w, m)) s.tables = arena.template carve<std::byte>(m, shape(w).vectors(), product::table_bytes);
        return s;
    }
    template <class Inputs>
    static void prepare([[maybe_unused]] exec_type const& exec, operand const& w, [[maybe_unused]] Inputs const& inputs, state const& s) noexcept {
        [[maybe_unused]] weights const packed = shape(w);
        if constexpr (!decoder::is_placed) pack_shared(w.storage(), packed, s.shared);
#if defined(__AVX512VBMI__)
        if constexpr (simd::looks_up_bytes<Arch>) {
            if (s.tables == nullptr) return;
            form const& x = inputs.template get<form>();
            product const p{packed, shared(w, s), x};
            index_t const vectors = packed.vectors();
            for (index_t m = 0; m < x.rows; ++m)
                parallel_for(exec.parallel(), vectors, 128, [&](index_t first, index_t last, index_t) noexcept {
                    p.table(m, first, last, s.tables + m * vectors * product::table_bytes);
                });
        }
#endif
    }
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept {
        return packed_bytes(w) + product::codes_bytes + tile.m * product::rows * static_cast<index_t>(sizeof(float));
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const& s, product_task const& task, std::byte* scratch) noexcept {
        constexpr index_t rows = product::rows;
        form const& x = inputs.template get<form>();
        weights const packed = shape(w);
        if (packed.panels() == 0) return;
        product const p{packed, shared(w, s), x};
        index_t const last = ceil_div(task.n1, rows);
        bool const by_tiles = product::allows_tiles(packed, task.m1 - task.m0);
        for (index_t b = task.n0 / rows; b < last;) {
#if defined(__AVX512VBMI__)
            if constexpr (simd::looks_up_bytes<Arch>) {
                if (s.tables != nullptr) {
                    bool const are_two = decoder::is_placed && b + 1 < last;
                    std::byte const* const panel = stage(w, packed, b, scratch);
                    for (index_t m = task.m0; m < task.m1; ++m) {
                        std::byte const* const tables = s.tables + m * packed.vectors() * product::table_bytes;
                        if (are_two)
                            p.template look_up<2>({panel, panel + packed.panel_bytes()}, m, tables, task, b * rows);
                        else
                            p.template look_up<1>({panel}, m, tables, task, b * rows);
                    }
                    b += are_two ? 2 : 1;
                    continue;
                }
            }
#endif
            std::byte const* const panel = stage(w, packed, b, scratch);
#if defined(__AMX_INT8__) && defined(__linux__)
            if constexpr (product::has_tiles) {
                if (by_tiles) {
                    simd::amx_tiles<64> const tiles;
                    p.many(panel, task, b * rows, true, scratch + packed_bytes(w));
                    ++b;
                    continue;
                }
            }
#endif
            p.many(panel, task, b * rows, false, scratch + packed_bytes(w));
            ++b;
        }
        static_cast<void>(by_tiles);
    }

    static std::string describe(operand const& w, index_t m) {
        bool const tiles = product::allows_tiles(shape(w), m);
        return decoder::name(w.storage()) + ", int8: " +
               (uses_tables(w, m) ? "look-ups in tables of dot products"
                : tiles           ? "matrix tiles"
                                  : simd::dot4_name<Arch>);
    }

private:
    static weights shape(operand const& w) noexcept {
        if constexpr (decoder::is_placed)
            return w.storage();
        else
            return decoder::shape(w.storage(), nullptr);
    }
    static std::byte const* shared([[maybe_unused]] operand const& w, [[maybe_unused]] state const& s) noexcept {
        if constexpr (decoder::is_placed)
            return w.storage().data();
        else
            return s.shared;
    }
    static index_t packed_bytes(operand const& w) noexcept { return decoder::is_placed ? 0 : round_up(shape(w).panel_bytes(), 64); }
    static std::byte const* stage(operand const& w, weights const& packed, index_t b, [[maybe_unused]] std::byte* scratch) noexcept {
        if constexpr (decoder::is_placed) {
            return packed.panel_data(b);
        } else {
            pack_panel(w.storage(), packed, b, scratch);
            return scratch;
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
