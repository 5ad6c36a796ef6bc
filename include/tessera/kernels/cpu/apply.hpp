// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The product of a stored matrix on the CPU: `kernel<op::apply, cpu, linear<Storage, Preparation>>`.
///
/// There is one way through: panels of R rows (R = float lanes). Placed storage has them in memory; of canonical storage
/// a panel is packed into scratch when its turn comes, so the arithmetic, and the result, are the same. Placing pays when
/// an operand is used more than once or with few rows of x; `describe` says which of the two an operand does.

#include "../../core/tile.hpp"
#include "../kernel.hpp"
#include "../operand.hpp"
#include "pack.hpp"
#include "prepare.hpp"
#include "prepare_panels.hpp"
#include "product_amx.hpp"
#include "product_bf16.hpp"
#include "product_float.hpp"
#include "product_int8.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// acc(m, n) += factor * the lanes of `value` that belong to rows of the task; lane 0 is row `first` of W.
template <class Arch>
TESSERA_FORCE_INLINE void add_to_task(product_task const& task, index_t m, index_t first,
                                      simd::floats<Arch> const& value) noexcept {
    using floats = simd::floats<Arch>;
    float* const row = task.accumulator + (m - task.m0) * task.stride;
    if (first >= task.n0 && first + simd::lanes<Arch> <= task.n1) {
        float* const p = row + (first - task.n0);
        simd::store<Arch>(p, simd::fma(floats(task.factor), value, simd::load<Arch>(p)));
        return;
    }
    alignas(64) float lane[simd::lanes<Arch>];
    value.store_aligned(lane);
    index_t const end = minimum(task.n1, first + simd::lanes<Arch>);
    for (index_t n = maximum(task.n0, first); n < end; ++n) row[n - task.n0] += task.factor * lane[n - first];
}

/// A tile's edge, where some lanes belong to no row of the task.
template <class Arch, int MR, int NP>
TESSERA_COLD void add_edge(simd::floats<Arch> const (&value)[MR][NP], product_task const& task, index_t m, index_t first) noexcept {
    for (int i = 0; i < MR; ++i)
        for (int q = 0; q < NP; ++q) add_to_task<Arch>(task, m + i, first + q * simd::lanes<Arch>, value[i][q]);
}

/// acc += factor * MR rows of x, from m, times NP panels of columns, the first of which begins at row `first` of W. begins: acc
/// is taken for 0; all of the panels' rows belong to the task then.
template <class Arch, class T, int MR, int NP, class Rows>
void multiply_columns(T const* const (&w)[NP], index_t stride, index_t columns, Rows const& x, product_task const& task, index_t m,
                      index_t first, bool begins = false) noexcept {
    using floats = simd::floats<Arch>;
    floats result[MR][NP];
    index_t const row = task.stride; // not read again after every store
    float* p = task.accumulator + (m - task.m0) * row + first - task.n0;
    for (int i = 0; i < MR; ++i)
        for (int q = 0; q < NP; ++q) simd::prefetch(p + i * row + q * simd::lanes<Arch>); // they lie in the second-level cache
    product_panels_dense<Arch, T, MR, NP>(w, stride, columns, x, result);
    floats const factor(task.factor);
    if (begins) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i, p += row)
#pragma GCC unroll 4
            for (int q = 0; q < NP; ++q) // 0 is added: a sum of -0 is 0, as it is elsewhere
                simd::store<Arch>(p + q * simd::lanes<Arch>, simd::fma(factor, result[i][q], floats(0.0f)));
    } else if (first >= task.n0 && first + NP * simd::lanes<Arch> <= task.n1) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i, p += row)
#pragma GCC unroll 4
            for (int q = 0; q < NP; ++q)
                simd::store<Arch>(p + q * simd::lanes<Arch>, simd::fma(factor, result[i][q], simd::load<Arch>(p + q * simd::lanes<Arch>)));
    } else {
        floats edge[MR][NP]; // a copy, so that what is above stays in registers
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
            for (int q = 0; q < NP; ++q) edge[i][q] = result[i][q];
        add_edge<Arch, MR, NP>(edge, task, m, first);
    }
}

/// The same for all rows of a task and the columns from `k0`; x packed, where it is and a block begins with the task: either
/// gives the same bits. finish, where there is one: these are the last columns, and rows are complete with them, while what
/// is written, far away, has the time of the next rows' products to get there.
template <class Arch, int NP, class Form, class Panels>
void multiply_decoded(float const* const (&w)[NP], index_t k0, index_t columns, Form const& x, Panels const& packed,
                      product_task const& task, index_t first, bool begins, tile_finisher const* finish) noexcept {
    constexpr index_t R = simd::lanes<Arch>;
    auto const part = [&](index_t m, int rows) noexcept {
        return product_task{m, m + rows, first, first + NP * R, task.factor,
                            task.accumulator + (m - task.m0) * task.stride + first - task.n0, task.stride};
    };
    if (packed.exists() && task.m0 % Panels::width == 0)
        for_row_blocks<decoded_row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
            multiply_columns<Arch, float, MR, NP>(w, R, columns, packed_rows<Panels::width>{packed.at(m, k0)}, task, m, first, begins);
            if (finish != nullptr) (*finish)(part(m, MR));
        });
    else
        for_row_blocks<decoded_row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
            multiply_columns<Arch, float, MR, NP>(w, R, columns, strided_rows<MR>{x.row(m) + k0, x.stride}, task, m, first, begins);
            if (finish != nullptr) (*finish)(part(m, MR));
        });
}

/// The panel form of a stored matrix on an architecture.
template <class Arch, class Storage>
struct panel_form {
    using type = prepacked<panel<simd::lanes<Arch>, 4>, Storage>;
    static constexpr bool is_placed = false;
};
template <class Arch, class T>
struct panel_form<Arch, matrix_view<T const>> {
    using type = prepacked<panel<simd::lanes<Arch>, 1>, matrix_view<T const>>;
    static constexpr bool is_placed = false;
};
template <class Arch, class Layout, class Storage>
struct panel_form<Arch, prepacked<Layout, Storage>> {
    static_assert(Layout::rows == simd::lanes<Arch>,
                  "tessera: this operand was placed for another architecture; place it with the policy that applies it");
    using type = prepacked<Layout, Storage>;
    static constexpr bool is_placed = true;
};

/// The form of x for a panel form and a preparation.
template <class Arch, class Weights, class Preparation>
struct form_of {
    using type = prepared_form<typename Weights::source, Preparation>;
};
template <class Arch, index_t R, class Storage>
struct form_of<Arch, prepacked<panel<R, 1>, Storage>, as_is> {
    using type = float_rows<0>;
};
template <class Arch, index_t R, class Storage>
    requires(!bf16_shape<Arch, prepacked<panel<R, 1>, Storage>>::is_served)
struct form_of<Arch, prepacked<panel<R, 1>, Storage>, as_bf16> {
    using type = float_rows<0, as_bf16>;
};
template <class Arch, class Weights>
    requires(bf16_shape<Arch, Weights>::is_served)
struct form_of<Arch, Weights, as_bf16> {
    using type = bf16_rows;
};

/// Fewest rows of x for which decoding a panel once beats decoding it for every block.
inline constexpr index_t decode_once_rows = 9;

/// Rows of x for such products.
template <class Arch, class Preparation>
using panels_of = float_panels<decoded_row_block<Arch>, decoded_chunk<Arch>, Preparation>;

} // namespace detail

template <class Arch, class Parallel, class Storage, class Preparation>
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, Preparation>;
    using weights = typename detail::panel_form<Arch, Storage>::type;
    using form = typename detail::form_of<Arch, weights, Preparation>::type;
    struct state {};

    static constexpr bool is_placed = detail::panel_form<Arch, Storage>::is_placed;
    static constexpr bool is_dense = detail::is_dense_panel<weights>;
    static constexpr bool is_integer_product = detail::activation_group<Preparation> >= 0;
    static constexpr bool is_bf16_product = std::is_same_v<form, bf16_rows>;
    /// Whether many rows of x meet decoded weights.
    static constexpr bool decodes = !is_integer_product && !is_bf16_product && !is_dense;
    using panels = detail::panels_of<Arch, Preparation>;
    using forms = std::conditional_t<decodes, type_list<form, panels>, type_list<form>>;
    /// Weights are decoded once for all rows of a tile, about 512, in whole blocks of x. Matrix tiles and int8 take so little time
    /// that x has to stay in the cache.
    static constexpr index_t tile_rows(operand const&) noexcept {
        return is_integer_product || is_bf16_product ? 128 : round_up(512, panels::width);
    }
    static constexpr index_t R = simd::lanes<Arch>;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}

    /// Packed panels where the operand is not placed, and columns of decoded ones where many rows share them.
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept {
        return packed_bytes(w) + decoded_bytes(w, tile.m);
    }

    /// Whether a task of so many rows of x goes through matrix tiles.
    static bool uses_tiles(index_t m) noexcept {
        if constexpr (has_tiles)
            return m >= least_tile_rows && simd::amx_is_allowed();
        else
            return static_cast<void>(m), false;
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task,
                           std::byte* scratch) noexcept {
        add(w, inputs, task, scratch, nullptr);
    }

    /// Where many rows meet decoded weights and all lanes belong to the task, chunks of columns begin and finish it.
    template <class Inputs>
        requires decodes
    static void make(operand const& w, Inputs const& inputs, state const&, product_task const& task, std::byte* scratch,
                     tile_finisher const& finish) noexcept {
        if (task.m1 - task.m0 >= detail::decode_once_rows && task.n0 % R == 0 && task.n1 % R == 0 && w.cols() > 0)
            return add(w, inputs, task, scratch, &finish);
        for (index_t i = 0; i < (task.m1 - task.m0) * task.stride; ++i) task.accumulator[i] = 0.0f;
        add(w, inputs, task, scratch, nullptr);
        finish(task);
    }

private:
    /// accumulate; or, given what finishes, make.
    template <class Inputs>
    static void add(operand const& w, Inputs const& inputs, product_task const& task, std::byte* scratch,
                    [[maybe_unused]] tile_finisher const* finish) noexcept {
        form const& x = inputs.template get<form>();
        weights const packed = shape(w);
        index_t const last = ceil_div(task.n1, R);
        for (index_t p = task.n0 / R; p < last;) {
            if constexpr (has_tiles) {
                if (uses_tiles(task.m1 - task.m0)) {
                    // Placed panels follow each other in memory; a packed one is alone.
                    index_t const most = streams(task.m1 - task.m0) ? last - p : tile_panel_count;
                    index_t const count = is_placed ? minimum(most, last - p) : 1;
                    tile_panels(packed, stage(w, packed, p, scratch), count, x, task, p, scratch + packed_bytes(w));
                    p += count;
                    continue;
                }
            }
            if constexpr (is_bf16_product) {
                bf16_panel(packed, stage(w, packed, p, scratch), x, task, p, scratch + packed_bytes(w));
                ++p;
            } else {
                int const together = panels_together(packed, task, last - p);
                std::byte const* panel[most_panels] = {};
                for (int q = 0; q < together; ++q) panel[q] = stage(w, packed, p + q, scratch + q * (packed_bytes(w) / most_panels));
                if constexpr (is_integer_product)
                    integer_panels(packed, panel, together, x, task, p);
                else if constexpr (is_dense)
                    dense_panels<typename weights::element_type>(panel, together, x, task, p);
                else if (task.m1 - task.m0 < detail::decode_once_rows)
                    coded_panel(packed, panel[0], x, task, p);
                else
                    decoded_panels(packed, panel, together, x, inputs.template get<panels>(), task, p, scratch + packed_bytes(w), finish);
                p += together;
            }
        }
    }

    static constexpr bool has_tiles = [] {
#if defined(__AMX_INT8__) && defined(__linux__)
        if constexpr (is_integer_product && std::is_base_of_v<avx512_amx, Arch>) return detail::amx_shape<weights, form>::is_served;
#endif
        return is_bf16_product;
    }();
    /// Panels that go through the tiles together; their scratch is counted by the same constant.
    static constexpr index_t tile_panel_count = [] {
        if constexpr (is_bf16_product)
            return detail::bf16_shape<Arch, weights>::panels;
        else if constexpr (has_tiles)
            return detail::amx_shape<weights, form>::panels;
        return index_t{1};
    }();

    static constexpr index_t least_tile_rows = [] {
        if constexpr (has_tiles && !is_bf16_product) return detail::amx_shape<weights, form>::least_rows;
        return index_t{16};
    }();

    /// Whether panels meet so many rows of x, that go through tiles, while they stream by.
    static constexpr bool streams([[maybe_unused]] index_t m) noexcept {
        if constexpr (has_tiles && !is_bf16_product)
            return m <= detail::amx_shape<weights, form>::stream_rows;
        else
            return false;
    }

    static weights shape(operand const& w) noexcept {
        if constexpr (is_placed)
            return w.storage();
        else
            return {nullptr, w.rows(), w.cols()};
    }
    static index_t packed_bytes(operand const& w) noexcept {
        return is_placed ? 0 : most_panels * round_up(shape(w).panel_bytes(), config::cache_line);
    }
    static index_t decoded_bytes([[maybe_unused]] operand const& w, index_t m) noexcept {
        if constexpr (is_bf16_product) { // the last tile may have few rows
            using shape = detail::bf16_shape<Arch, weights>;
            return maximum(shape::dot_bytes(w.cols()), uses_tiles(m) ? shape::tile_bytes(m) : 0);
        } else if constexpr (has_tiles) {
            using shape = detail::amx_shape<weights, form>;
            if (uses_tiles(m)) return streams(m) ? shape::stream_bytes : shape::scratch_bytes(m);
        }
        return decodes && m >= detail::decode_once_rows ? most_panels * R * panels::chunk * static_cast<index_t>(sizeof(float)) : 0;
    }
    /// Rows of x with which integer products take two panels at a time: where registers are few, only while memory is the limit.
    static constexpr index_t integer_pair_rows = R == 16 ? detail::int8_rows_together : 2;
    /// Panels at a time, of `left`: float products take as many as fill the registers, integer ones two streams of memory, if
    /// the next two panels are so far that they can be asked for (`prefetch_ahead`).
    static constexpr int most_panels = decodes ? detail::decoded_panel_block<Arch> : 2;
    static int panels_together(weights const& packed, product_task const& task, index_t left) noexcept {
        index_t const m = task.m1 - task.m0;
        bool const are_several = is_integer_product ? m <= integer_pair_rows && packed.panel_bytes() >= detail::prefetch_distance / 2
                                                    : is_dense || m >= detail::decode_once_rows;
        if (!are_several) return 1;
        return left >= most_panels ? most_panels : left >= 2 ? 2 : 1;
    }
    static std::byte const* stage(operand const& w, weights const& packed, index_t p, std::byte* scratch) noexcept {
        if constexpr (is_placed) {
            static_cast<void>(scratch);
            return w.storage().data() + p * packed.panel_bytes();
        } else {
            pack_panel(w.storage(), packed, p, scratch);
            return scratch;
        }
    }

    /// Several panels, decoded chunk by chunk.
    static void decoded_panels(weights const& packed, std::byte const* const (&panel)[most_panels], int together, form const& x,
                               panels const& x_panels, product_task const& task, index_t p, std::byte* scratch,
                               tile_finisher const* finish) noexcept {
        for (index_t k0 = 0; k0 < packed.cols(); k0 += panels::chunk) {
            index_t const k1 = minimum(k0 + panels::chunk, packed.cols());
            float* decoded[most_panels];
            for (int q = 0; q < most_panels; ++q) decoded[q] = reinterpret_cast<float*>(scratch) + q * R * panels::chunk;
            for (int q = 0; q < together; ++q) detail::decode_panel<Arch>(packed, panel[q], k0, k1, decoded[q]);
            auto const multiply = [&]<int NP>(std::integral_constant<int, NP>) noexcept {
                float const* columns[NP];
                for (int q = 0; q < NP; ++q) columns[q] = decoded[q];
                detail::multiply_decoded<Arch, NP>(columns, k0, k1 - k0, x, x_panels, task, p * R, finish != nullptr && k0 == 0,
                                                   k1 == packed.cols() ? finish : nullptr);
            };
            if (together == most_panels)
                multiply(std::integral_constant<int, most_panels>{});
            else if (together == 2)
                multiply(std::integral_constant<int, 2>{});
            else
                multiply(std::integral_constant<int, 1>{});
        }
    }
    static void integer_panels(weights const& packed, std::byte const* const (&data)[2], int together, form const& x,
                               product_task const& task, index_t p) noexcept {
        if (together == 2)
            integer_block<2>(packed, {data[0], data[1]}, x, task, p);
        else
            integer_block<1>(packed, {data[0]}, x, task, p);
    }
    template <int NP>
    static void integer_block(weights const& packed, std::byte const* const (&data)[NP], form const& x,
                              product_task const& task, index_t p) noexcept {
        simd::floats<Arch> result[detail::int8_rows_together][NP];
        for (index_t m = task.m0; m < task.m1; m += detail::int8_rows_together) {
            index_t const rows = minimum(detail::int8_rows_together, task.m1 - m);
            detail::product_panels_int8<Arch, weights, form, NP>(packed, data, x, m, rows, result);
            for (index_t i = 0; i < rows; ++i)
                for (int q = 0; q < NP; ++q) detail::add_to_task<Arch>(task, m + i, (p + q) * R, result[i][q]);
        }
    }
    static void tile_panels([[maybe_unused]] weights const& packed, [[maybe_unused]] std::byte const* data,
                            [[maybe_unused]] index_t count, [[maybe_unused]] form const& x,
                            [[maybe_unused]] product_task const& task, [[maybe_unused]] index_t p,
                            [[maybe_unused]] std::byte* scratch) noexcept {
#if defined(__AMX_INT8__) && defined(__linux__)
        auto const emit = [&](index_t q, index_t m, simd::floats<Arch> const& value) noexcept {
            detail::add_to_task<Arch>(task, m, (p + q) * R, value);
        };
        if constexpr (is_bf16_product) {
            detail::product_panels_bf16<Arch>(packed, data, count, x, task.m0, task.m1, scratch, emit);
        } else {
            if constexpr (detail::amx_shape<weights, form>::stream_rows > 0)
                if (streams(task.m1 - task.m0)) return stream_panels(packed, data, count, x, task, scratch, emit);
            detail::product_panels_amx<Arch>(packed, data, count, x, task.m0, task.m1, scratch, emit);
        }
#endif
    }
#if defined(__AMX_INT8__) && defined(__linux__)
    template <class Emit>
    static void stream_panels(weights const& packed, std::byte const* data, index_t count, form const& x, product_task const& task,
                              std::byte* scratch, Emit const& emit) noexcept {
        index_t const rows = task.m1 - task.m0;
        if (rows <= 8)
            detail::stream_panels_amx<8, Arch>(packed, data, count, x, task.m0, rows, scratch, emit);
        else
            detail::stream_panels_amx<16, Arch>(packed, data, count, x, task.m0, rows, scratch, emit);
    }
#endif
    static void bf16_panel([[maybe_unused]] weights const& packed, [[maybe_unused]] std::byte const* data,
                           [[maybe_unused]] form const& x, [[maybe_unused]] product_task const& task,
                           [[maybe_unused]] index_t p, [[maybe_unused]] std::byte* scratch) noexcept {
#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
        if constexpr (is_bf16_product) {
            auto* const pairs = reinterpret_cast<bf16*>(scratch);
            detail::decode_pairs<Arch>(packed, data, 0, packed.cols(), pairs);
            detail::for_row_blocks<detail::row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
                simd::floats<Arch> result[MR];
                detail::product_panel_bf16<Arch, MR>(pairs, x, m, result);
                for (int i = 0; i < MR; ++i) detail::add_to_task<Arch>(task, m + i, p * R, result[i]);
            });
        }
#endif
    }
    static void coded_panel(weights const& packed, std::byte const* data, form const& x, product_task const& task,
                            index_t p) noexcept {
        detail::for_row_blocks<detail::row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
            simd::floats<Arch> result[MR];
            detail::product_panel_float<Arch, weights, form, MR>(packed, data, x, m, result);
            for (int i = 0; i < MR; ++i) detail::add_to_task<Arch>(task, m + i, p * R, result[i]);
        });
    }
    template <class T>
    static void dense_panels(std::byte const* const (&data)[2], int together, form const& x, product_task const& task,
                             index_t p) noexcept {
        if (together == 2)
            dense_block<T, 2>({reinterpret_cast<T const*>(data[0]), reinterpret_cast<T const*>(data[1])}, x, task, p);
        else
            dense_block<T, 1>({reinterpret_cast<T const*>(data[0])}, x, task, p);
    }
    template <class T, int NP>
    static void dense_block(T const* const (&panel)[NP], form const& x, product_task const& task, index_t p) noexcept {
        detail::for_row_blocks<detail::dense_row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
            detail::multiply_columns<Arch, T, MR, NP>(panel, R, x.columns, detail::strided_rows<MR>{x.row(m), x.stride}, task, m, p * R);
        });
    }
};

} // namespace tessera::inline TESSERA_ABI
