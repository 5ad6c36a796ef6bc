// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products with storage that is read by tiles: tables, nested codes, grids, codebooks of vectors. One kernel for all: a panel
/// of R rows (R = float lanes) is decoded to float32 columns, 256 of them at a time, which stay in the first-level cache, and
/// multiplied like a dense panel. What a format adds is its decoder:
///
/// @verbatim
///     template <class Arch> struct panel_decoder<Arch, your_storage> {
///         using weights;                                          // the placed form; the storage itself where placed
///         static weights shape(w, data)                           // `weights` of that shape with its bytes at `data`
///         static void pack_shared(w, packed, out), pack(w, packed, p, out)   // where not placed: what panels share, panel p
///         panel_decoder(w, scratch), scratch_bytes(w)             // for a task; scratch only where not placed
///         void start(p)                                           // panel p is next; placed: start_at(bytes, p), too
///         void decode(k0, k1, out) const                          // W(p R + r, k) at out[(k - k0) * R + r]; k0 % 256 == 0
///         void product<MR>(x, result) const                       // may be left out: few rows of x at once, codes in registers
///         row_panels, has_row_product(w), row_product(panels, x, result)      // or: one row of x by several panels
///         static std::string name(w)                              // for `describe`
///     };
/// @endverbatim
///
/// `packing_decoder` below is the base of those that are not placed: they pack a panel when its turn comes, so that placed and
/// canonical operands give the same bits. Sums of 256 columns are added in order: results depend on the shape alone.
/// `decode` may write whole chunks, up to column round_up(k1, 128).

#include "../vector_operand.hpp"
#include "decode.hpp"

#include <array>
#include <string>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// See the file comment; specialised beside the format.
template <class Arch, class Storage>
struct panel_decoder {
    static_assert(always_false<Arch, Storage>, "tessera: this storage has no decoder for the CPU");
};

/// Columns decoded together, and room for them.
inline constexpr index_t decoded_columns = 256;
template <class Arch>
inline constexpr index_t decoded_bytes = decoded_columns * simd::lanes<Arch> * static_cast<index_t>(sizeof(float));

/// A decoder of storage that is not placed: panels are packed to scratch and decoded by the decoder of the placed form.
template <class Arch, class Storage, class Weights>
class packing_decoder {
public:
    using weights = Weights;
    static constexpr bool is_placed = false;
    /// Rows that are packed together: a panel's, or several panels'.
    static constexpr index_t packed_rows = [] {
        if constexpr (requires { Weights::panel_rows; }) return Weights::panel_rows;
        return index_t{simd::lanes<Arch>};
    }();

    static weights shape(Storage const& w, std::byte const* data) noexcept { return weights{data, w}; }
    static index_t scratch_bytes(Storage const& w) noexcept {
        weights const packed = shape(w, nullptr);
        return round_up(packed.shared_bytes(), 64) + round_up(packed.panel_bytes(), 64);
    }
    packing_decoder(Storage const& w, std::byte* scratch) noexcept
        : w_{w}, packed_{shape(w, scratch)}, panel_{scratch + round_up(packed_.shared_bytes(), 64)}, inner_{packed_, nullptr} {
        pack_shared(w_, packed_, scratch);
    }
    void start(index_t p) noexcept {
        index_t const from = p * simd::lanes<Arch> / packed_rows;
        if (from != there_) pack_panel(w_, packed_, from, panel_);
        there_ = from;
        inner_.start_at(panel_, p);
    }
    void decode(index_t k0, index_t k1, float* out) const noexcept { inner_.decode(k0, k1, out); }
    template <int MR>
    void product(float const* const (&x)[MR], simd::floats<Arch> (&result)[MR]) const noexcept
        requires requires(panel_decoder<Arch, Weights> const& inner) { inner.template product<MR>(x, result); }
    {
        inner_.template product<MR>(x, result);
    }
    static constexpr int row_panels = 1;
    static bool has_row_product(Storage const& w) noexcept
        requires requires(weights const& packed) { panel_decoder<Arch, Weights>::has_row_product(packed); }
    {
        return panel_decoder<Arch, weights>::has_row_product(shape(w, nullptr));
    }
    template <int NP, class Decoder>
    static void row_product(Decoder const* const (&panel)[NP], float const* x, simd::floats<Arch> (&result)[NP]) noexcept {
        static_assert(NP == 1);
        packing_decoder const& packed = *panel[0];
        panel_decoder<Arch, weights>::template row_product<1>({&packed.inner_}, x, result);
    }
    static std::string name(Storage const& w) {
        return panel_decoder<Arch, weights>::name(shape(w, nullptr)) + " packed on the fly";
    }

private:
    Storage w_;
    weights packed_;
    std::byte* panel_;
    index_t there_ = -1; // what is packed
    panel_decoder<Arch, weights> inner_;
};

/// The product by columns that a decoder writes.
template <class Arch, class Parallel, tile_storage Storage, class Preparation>
struct tile_product {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, Preparation>;
    using decoder = detail::panel_decoder<Arch, Storage>;
    using form = float_rows<0, Preparation>;
    using forms = type_list<form>;
    struct state {};
    static constexpr index_t R = simd::lanes<Arch>;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        detail::require_vector_preparation<Storage, Preparation>();
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}
    /// With many rows of x two panels are multiplied together, which shares the loads of x.
    static constexpr index_t pair_rows = 9;
    /// Most rows with which codes are multiplied as they are decoded.
    static constexpr index_t few_rows = 4;
    static index_t panel_scratch(operand const& w) noexcept {
        return detail::decoded_bytes<Arch> + round_up(decoder::scratch_bytes(w.storage()), 64);
    }
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept {
        return (tile.m >= pair_rows ? 2 : 1) * panel_scratch(w);
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task,
                           std::byte* scratch) noexcept {
        form const& x = inputs.template get<form>();
        if (w.cols() == 0) return;
        if constexpr (requires(decoder const& d, float const* const(&one)[1], simd::floats<Arch>(&result)[1]) { d.template product<1>(one, result); })
            if (task.m1 - task.m0 <= few_rows) return multiply_few(w, x, task, scratch);
        if constexpr (requires { decoder::has_row_product(w.storage()); })
            if (task.m1 - task.m0 == 1 && decoder::has_row_product(w.storage())) return multiply_row(w, x, task, scratch);
        if (task.m1 - task.m0 < pair_rows) {
            decoder panels[1] = {at(w, scratch)};
            for (index_t p = task.n0 / R; p * R < task.n1; ++p) multiply<1>(w, panels, x, task, p, scratch);
        } else {
            decoder panels[2] = {at(w, scratch), at(w, scratch + panel_scratch(w))};
            index_t p = task.n0 / R;
            for (; (p + 1) * R < task.n1; p += 2) multiply<2>(w, panels, x, task, p, scratch);
            decoder last[1] = {panels[0]};
            if (p * R < task.n1) multiply<1>(w, last, x, task, p, scratch);
        }
    }

    static std::string describe(operand const& w, index_t) {
        return decoder::name(w.storage()) + ", float multiply-add on decoded columns";
    }

private:
    static decoder at(operand const& w, std::byte* scratch) noexcept {
        return decoder{w.storage(), scratch + detail::decoded_bytes<Arch>};
    }
    /// One row of x by panels side by side, as many at a time as the decoder takes.
    static void multiply_row(operand const& w, form const& x, product_task const& task, std::byte* scratch) noexcept {
        index_t const end = ceil_div(task.n1, R);
        index_t p = task.n0 / R;
        decoder const one = at(w, scratch);
        auto const several = [&]<int NP>(std::integral_constant<int, NP>) noexcept {
            // Decoders of placed panels are pointers; one that packs has room for one panel.
            auto panels = [&]<int... Q>(std::integer_sequence<int, Q...>) noexcept {
                return std::array<decoder, NP>{(static_cast<void>(Q), one)...};
            }(std::make_integer_sequence<int, NP>{});
            decoder const* panel[NP];
            for (int q = 0; q < NP; ++q) {
                panels[static_cast<std::size_t>(q)].start(p + q);
                panel[q] = &panels[static_cast<std::size_t>(q)];
            }
            simd::floats<Arch> result[NP];
            decoder::template row_product<NP>(panel, x.row(task.m0), result);
            for (int q = 0; q < NP; ++q) detail::add_to_task<Arch>(task, task.m0, (p + q) * R, result[q]);
        };
        for (; p + decoder::row_panels <= end; p += decoder::row_panels) several(std::integral_constant<int, decoder::row_panels>{});
        for (; p < end; ++p) several(std::integral_constant<int, 1>{});
    }
    static void multiply_few(operand const& w, form const& x, product_task const& task, std::byte* scratch) noexcept {
        decoder panel = at(w, scratch);
        for (index_t p = task.n0 / R; p * R < task.n1; ++p) {
            panel.start(p);
            detail::for_row_blocks<few_rows>(task.m0, task.m1, [&]<int MR>(index_t m) {
                float const* row[MR];
                for (int i = 0; i < MR; ++i) row[i] = x.row(m + i);
                simd::floats<Arch> result[MR];
                panel.template product<MR>(row, result);
                for (int i = 0; i < MR; ++i) detail::add_to_task<Arch>(task, m + i, p * R, result[i]);
            });
        }
    }
    /// acc += x times panels p ... p + NP, whose rows may go beyond the last.
    template <int NP>
    static void multiply(operand const& w, decoder (&panels)[NP], form const& x, product_task const& task, index_t p,
                         std::byte* scratch) noexcept {
        float* decoded[NP];
        float const* column[NP];
        for (int q = 0; q < NP; ++q) {
            panels[q].start(p + q);
            column[q] = decoded[q] = reinterpret_cast<float*>(scratch + q * panel_scratch(w));
        }
        for (index_t k0 = 0; k0 < w.cols(); k0 += detail::decoded_columns) {
            index_t const k1 = minimum(k0 + detail::decoded_columns, w.cols());
            for (int q = 0; q < NP; ++q) panels[q].decode(k0, k1, decoded[q]);
            detail::for_row_blocks<detail::dense_row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
                detail::multiply_columns<Arch, float, MR, NP>(column, R, k1 - k0, detail::strided_rows<MR>{x.row(m) + k0, x.stride}, task, m, p * R);
            });
        }
    }
};

} // namespace detail

template <class Arch, class Parallel, tile_storage Storage, class Preparation>
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>> : detail::tile_product<Arch, Parallel, Storage, Preparation> {};

/// Tiles of the transposed product, and of whoever asks.
template <class Arch, class Parallel, tile_storage Storage>
struct kernel<op::decode, cpu<Arch, Parallel>, Storage> {
    using decoder = detail::panel_decoder<Arch, Storage>;
    static constexpr index_t R = simd::lanes<Arch>;

    static index_t scratch_bytes(Storage const& w) noexcept {
        return detail::decoded_bytes<Arch> + decoder::scratch_bytes(w);
    }
    static void tile(Storage const& w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride,
                     std::byte* scratch) noexcept {
        if (k0 == k1) return;
        auto* const columns = reinterpret_cast<float*>(scratch);
        decoder panels{w, scratch + detail::decoded_bytes<Arch>};
        for (index_t p = n0 / R; p * R < n1; ++p) {
            panels.start(p);
            for (index_t first = k0 / detail::decoded_columns * detail::decoded_columns; first < k1; first += detail::decoded_columns) {
                index_t const from = maximum(k0, first);
                index_t const to = minimum(first + detail::decoded_columns, k1);
                panels.decode(first, to, columns);
                for (index_t n = maximum(n0, p * R); n < minimum(n1, (p + 1) * R); ++n)
                    for (index_t k = from; k < to; ++k)
                        out[(n - n0) * stride + k - k0] = columns[(k - first) * R + n % R];
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
