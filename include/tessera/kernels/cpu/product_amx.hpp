// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Five (with groups of 32 nine) and more int8 rows of x times panels of coded weights, by matrix tiles. The formula, its order of additions and
/// therefore its bits are those of product_int8.hpp.
///
/// Up to 16 rows, which memory bounds, meet a panel while it streams by (`stream_panels_amx`). With more of them
/// (`product_panels_amx`) columns are taken in chunks: four panels' codes are unpacked, less their zero, to signed bytes
/// (16 KiB, in the first-level cache), and every block of 16 rows of x is multiplied by them. Four sums are under way in the
/// tiles; when one is done its tile starts the next product, and the vector units scale what it gave. Per group of 32 columns and 16 x 16 results that is
/// a tile product (16 cycles), 24 rows of tiles loaded and 16 stored, and for every row a conversion and one to three
/// multiply-adds: 45 cycles if nothing else is done on the processor this was measured on, whose tile instructions and vector
/// arithmetic hardly overlap; about 75 here.
///
/// Codes of 2 bits in groups of 16 (Q2_K) are multiplied by the integers of their groups when they are unpacked: the products fit a
/// byte, and a super group is one sum.

#include "../../simd/amx.hpp"
#include "product_int8.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Constants of a pair of a placed format and a form of x.
template <class Weights, class Form>
struct amx_shape {
    using source = typename Weights::source;
    /// Whether codes go into the tiles times the scales of their groups, bytes still.
    static constexpr bool folds_scales =
        Weights::packs_minima && integer_codes<source>::zero == 0 && (15 << source::bits) - 15 <= 127 && Weights::strip_columns == source::group;
    /// Columns under one scale then.
    static constexpr index_t group = folds_scales ? Weights::super_groups * source::group : source::group;
    /// Columns of a segment, the unit of an integer sum.
    static constexpr index_t segment = !folds_scales            ? longest_segment<source, Form>
                                       : Form::scale_group == 0 ? group
                                                                : std::gcd(group, Form::scale_group);
    /// Columns of one tile step.
    static constexpr int depth = segment % 64 == 0 ? 64 : 32;
    /// Columns of a chunk: whole groups, at least four segments and 256 columns.
    static constexpr index_t chunk =
        group == 0 ? 4 * segment : round_up(maximum(4 * segment, 256), maximum(group, 1));
    /// Panels that share the reads of x: what the first-level cache holds of their chunks.
    static constexpr index_t panels = segment > longest_integer_sum ? 2 : 4;
    /// Whether tiles serve this pair: codes less their zero fit a signed byte, and groups are whole segments and steps.
    static constexpr bool is_served = Weights::layout::rows == 16 && integer_codes<source>::kind != integer_codes_kind::pair &&
                                      group % 32 == 0 && segment % 32 == 0 && group % segment == 0 &&
                                      (source::offset != offset_kind::zero_point || integer_codes<source>::bits <= 7);
    static constexpr index_t codes_bytes = chunk * 16;
    /// Fewest rows of x that go through tiles (with short segments dot products are as fast up to 8), and most of them with which a
    /// panel streams by once: none where scales are folded.
    static constexpr index_t stream_rows = folds_scales ? 0 : 16;
    static constexpr index_t least_rows = folds_scales ? 33 : segment >= 64 ? 5 : 9;

    /// Segments that are unpacked or on their way through the tiles: a tile load waits long for what was stored just before.
    static constexpr index_t stream_slots = 8;
    /// Scratch of `stream_panels_amx`: sums of an unfinished group, unpacked segments.
    static constexpr index_t stream_bytes =
        16 * 16 * static_cast<index_t>(sizeof(float)) + stream_slots * segment * 16;
    /// Scratch: the unpacked codes of the panels; for m rows of each, the sums, and those of unfinished groups.
    static constexpr index_t scratch_bytes(index_t m) noexcept {
        return panels * (codes_bytes + round_up(m, 16) * 32 * static_cast<index_t>(sizeof(float)));
    }
};

#if defined(__AMX_INT8__) && defined(__linux__)

/// Columns [first, last) of a panel as rows of 64 bytes: row q holds columns 4 q .. 4 q + 3 of its 16 rows, signed.
template <class Arch, class Weights, class Form>
void unpack_chunk_amx(Weights const& w, std::byte const* data, index_t first, index_t last, std::int8_t* out) noexcept {
    using source = typename Weights::source;
    std::int8_t* const end = out + round_up(last - first, amx_shape<Weights, Form>::depth) * 16;
    while (first < last) {
        index_t const g = first / w.group();
        index_t const here = minimum(last, g * w.group() + w.group_columns(g)) - first;
        std::byte const* codes = data + w.codes_offset(g) + Weights::strip_offset(first - g * w.group());
        [[maybe_unused]] index_t const strips = Weights::strips(here);
        if constexpr (amx_shape<Weights, Form>::folds_scales) {
            auto const scales = joined_scales<Arch, Weights>(joined_levels<Arch, Weights, true>(data + w.scales_offset(g)));
            out = simd::unpack_times<Arch, Weights>(codes, scales, out);
        } else if constexpr (source::offset == offset_kind::zero_point) {
            auto const zero = group_zero_points<Arch>(w, data, g);
            for (index_t s = 0; s < strips; ++s) out = simd::unpack_signed<Arch, Weights>(codes + s * Weights::strip_bytes, zero, out);
        } else {
            for (index_t s = 0; s < strips; ++s) out = simd::unpack_signed<Arch, Weights>(codes + s * Weights::strip_bytes, out);
        }
        first += here;
    }
    for (; out < end; ++out) *out = 0;
}

/// The tile products of a chunk in their order: blocks of 16 rows of x, panels, segments; each row of segments is filled up to
/// four with empty ones.
template <class Weights, class Form>
class amx_cursor {
    using shape = amx_shape<Weights, Form>;

public:
    amx_cursor(Form const& x, index_t m0, index_t m1, std::int8_t const* codes, index_t panels, index_t first,
               index_t last) noexcept
        : x_{x.row(0) + first}, codes_{codes}, stride_{Form::stride_of(x.columns)}, m_{m0}, end_{m1}, panels_{panels},
          columns_{last - first} {
        start_row();
    }

    /// Starts the next product, if there is one.
    template <int Tile, class Tiles>
    TESSERA_FORCE_INLINE void start(Tiles const& tiles) noexcept {
        if (m_ >= end_) return;
        index_t const here = minimum(shape::segment, left_);
        tiles.template start<Tile>(a_, stride_, b_, here <= 0 ? 0 : ceil_div(here, shape::depth));
        a_ += shape::segment;
        b_ += 16 * shape::segment;
        left_ -= shape::segment;
        if (Tile != 3 || left_ > 0) return;
        if (++panel_ == panels_) {
            panel_ = 0;
            m_ += 16;
        }
        start_row();
    }

private:
    void start_row() noexcept {
        a_ = x_ + minimum(m_, end_ - 16) * stride_;
        b_ = codes_ + panel_ * shape::codes_bytes;
        left_ = columns_;
    }

    std::int8_t const* x_;
    std::int8_t const* codes_;
    index_t stride_, m_, end_, panels_, columns_;
    index_t panel_ = 0;
    std::int8_t const* a_;
    std::int8_t const* b_;
    index_t left_;
};

/// A stretch of memory to be asked for in equal steps.
struct prefetch_stretch {
    std::byte const* next;
    index_t lines_a_step;
    TESSERA_FORCE_INLINE void step() noexcept {
        for (index_t i = 0; i < lines_a_step; ++i, next += config::cache_line) simd::prefetch(next);
    }
};

/// Adds the integer sums of the segment at column k to the float32 results of Rows rows of x from m, of which `rows` exist.
/// `total` holds the sums of a group of several segments.
template <class Arch, class Weights, class Form, int Rows>
TESSERA_FORCE_INLINE void add_segment_amx(Weights const& w, std::byte const* data, Form const& x, index_t m, index_t rows,
                                          index_t k, std::int32_t const* sum, simd::floats<Arch> (&result)[Rows],
                                          float* total) noexcept {
    using source = typename Weights::source;
    using floats = simd::floats<Arch>;
    constexpr bool token_scale = Form::scale_group == 0;
    constexpr bool is_group = source::group == amx_shape<Weights, Form>::segment;
    index_t const g = source::group == 0 ? 0 : k / maximum(source::group, 1);
    index_t const group_end = g * w.group() + w.group_columns(g);
    bool const starts = is_group || k == g * w.group();
    bool const ends = is_group || k + amx_shape<Weights, Form>::segment >= group_end;
    index_t const scales_stride = Form::scales_of(x.columns);
    float const* const x_scale = x.scales + m * scales_stride + (token_scale ? 0 : k / maximum(Form::scale_group, 1));
    floats const scale = integer_scales<Arch>(w, data, g);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
        floats f = xsimd::to_float(simd::ints<Arch>::load_aligned(sum + 16 * r));
        if constexpr (!token_scale) {
            floats const s(x_scale[(r < rows ? r : 0) * scales_stride]);
            f = starts ? f * s : simd::fma(f, s, floats::load_aligned(total + 16 * r));
        } else if (!starts) {
            f = f + floats::load_aligned(total + 16 * r);
        }
        if (ends)
            result[r] = simd::fma(f, scale, result[r]);
        else
            f.store_aligned(total + 16 * r);
    }
    if constexpr (source::offset == offset_kind::minimum) {
        if (!ends) return;
        floats const offset = group_minima<Arch>(w, data, g);
        float const* const x_sum = x.scaled_sums + m * Form::blocks_of(x.columns) + g * w.group() / Form::block;
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            index_t const row = r < rows ? r : 0;
            if constexpr (source::group == Form::block)
                result[r] = simd::fma(offset, floats(x_sum[row * Form::blocks_of(x.columns)]), result[r]);
            else
                result[r] = simd::fma(offset, floats(x.scaled_sum(m + row, g * w.group(), w.group_columns(g))), result[r]);
        }
    }
}

/// minimum of the super group that begins with group g, times x: of 16 rows from m, added to result.
template <class Arch, class Weights, class Form>
TESSERA_FORCE_INLINE void add_super_minima_amx(Weights const& w, std::byte const* data, Form const& x, index_t m, index_t g,
                                               simd::floats<Arch> (&result)[16]) noexcept {
    using floats = simd::floats<Arch>;
    index_t const stride = Form::blocks_of(x.columns);
    floats const minimum = super_minima<Arch, Weights>(data + w.super_offset(g));
#pragma GCC unroll 2
    for (int half = 0; half < 16; half += 8) {
        float const* const sums = x.scaled_sums + (m + half) * stride + g;
        floats minima[8];
#pragma GCC unroll 8
        for (floats& f : minima) f = floats(0.0f);
        for (index_t i = 0; i < Weights::super_groups; ++i) {
            auto const here = joined_minima<Arch>(joined_levels<Arch, Weights>(data + w.scales_offset(g + i)));
#pragma GCC unroll 8
            for (int r = 0; r < 8; ++r) minima[r] = simd::fma(here, floats(sums[r * stride + i]), minima[r]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) result[half + r] = simd::fma(minima[r], minimum, result[half + r]);
    }
}

/// The same as `add_segment_amx` of 16 rows where scales are folded into codes.
template <class Arch, class Weights, class Form>
TESSERA_FORCE_INLINE void add_folded_segment_amx(Weights const& w, std::byte const* data, Form const& x, index_t m, index_t k,
                                                 std::int32_t const* sum, simd::floats<Arch> (&result)[16], float* total) noexcept {
    using shape = amx_shape<Weights, Form>;
    using floats = simd::floats<Arch>;
    bool const starts = k % shape::group == 0;
    bool const ends = (k + shape::segment) % shape::group == 0;
    index_t const g = k / shape::group * Weights::super_groups;
    index_t const scales_stride = Form::scales_of(x.columns);
    float const* const x_scale = x.scales + m * scales_stride + (Form::scale_group == 0 ? 0 : k / maximum(Form::scale_group, 1));
    floats const scale = super_scales<Arch, Weights>(data + w.super_offset(g));
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
        floats f = xsimd::to_float(simd::ints<Arch>::load_aligned(sum + 16 * r));
        if constexpr (Form::scale_group != 0) {
            floats const s(x_scale[r * scales_stride]);
            f = starts ? f * s : simd::fma(f, s, floats::load_aligned(total + 16 * r));
        }
        if (ends)
            result[r] = simd::fma(f, scale, result[r]);
        else
            f.store_aligned(total + 16 * r);
    }
    if (ends) add_super_minima_amx<Arch>(w, data, x, m, g, result);
}

/// Takes the sum of the segment at column k out of tile Tile, lets the tile start the next product, and adds the sum.
template <class Arch, int Tile, class Weights, class Form, class Tiles>
TESSERA_FORCE_INLINE void finish_segment_amx(Tiles const& tiles, Weights const& w, std::byte const* data, Form const& x,
                                             index_t m, index_t k, index_t last, amx_cursor<Weights, Form>& next,
                                             std::int32_t* sum, simd::floats<Arch> (&result)[16], float* total,
                                             prefetch_stretch& ahead) noexcept {
    tiles.template store<Tile>(sum);
    next.template start<Tile>(tiles);
    ahead.step();
    if (k >= last) return;
    if constexpr (amx_shape<Weights, Form>::folds_scales)
        add_folded_segment_amx<Arch>(w, data, x, m, k, sum, result, total);
    else
        add_segment_amx<Arch>(w, data, x, m, 16, k, sum, result, total);
}

/// Adds what columns [first, last), a chunk, give for 16 rows of x from m: products that `next` has started four ago, so that
/// the tiles work on the following ones meanwhile. `part`: 16 x 16 sums, then 16 x 16 sums of the unfinished group.
template <class Arch, class Weights, class Form, class Tiles>
TESSERA_FORCE_INLINE void product_block_amx(Tiles const& tiles, Weights const& w, std::byte const* data, Form const& x,
                                            index_t m, index_t first, index_t last, amx_cursor<Weights, Form>& next,
                                            float* part, prefetch_stretch ahead) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t segment = amx_shape<Weights, Form>::segment;
    alignas(64) std::int32_t sums[2][256];
    floats result[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) result[r] = floats::load_aligned(part + 16 * r);
    float* const total = part + 256;
    for (index_t k = first; k < last; k += 4 * segment) {
        finish_segment_amx<Arch, 0>(tiles, w, data, x, m, k, last, next, sums[0], result, total, ahead);
        finish_segment_amx<Arch, 1>(tiles, w, data, x, m, k + segment, last, next, sums[1], result, total, ahead);
        finish_segment_amx<Arch, 2>(tiles, w, data, x, m, k + 2 * segment, last, next, sums[0], result, total, ahead);
        finish_segment_amx<Arch, 3>(tiles, w, data, x, m, k + 3 * segment, last, next, sums[1], result, total, ahead);
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) result[r].store_aligned(part + 16 * r);
}

/// `count` panels, panel_bytes apart, by rows [m0, m1) of x, at least 16: emit(panel, m, value). The last block of 16 rows
/// starts early; what it has in common with the one before is computed twice and emitted once.
template <class Arch, class Weights, class Form, class Emit>
void product_panels_amx(Weights const& w, std::byte const* data, index_t count, Form const& x, index_t m0, index_t m1,
                        std::byte* scratch, Emit const& emit) noexcept {
    using shape = amx_shape<Weights, Form>;
    using floats = simd::floats<Arch>;
    simd::amx_tiles<shape::depth> const tiles;
    auto* const codes = reinterpret_cast<std::int8_t*>(scratch);
    auto* const parts = reinterpret_cast<float*>(scratch + shape::panels * shape::codes_bytes);
    index_t const blocks = ceil_div(m1 - m0, 16);
    auto const part = [&](index_t b, index_t q) { return parts + (b * count + q) * 512; };
    for (index_t i = 0; i < blocks * count * 512; i += 16) floats(0.0f).store_aligned(parts + i);
    for (index_t first = 0; first < w.cols(); first += shape::chunk) {
        index_t const last = minimum(first + shape::chunk, w.cols());
        for (index_t q = 0; q < count; ++q)
            unpack_chunk_amx<Arch, Weights, Form>(w, data + q * w.panel_bytes(), first, last, codes + q * shape::codes_bytes);
        amx_cursor<Weights, Form> next{x, m0, m1, codes, count, first, last};
        next.template start<0>(tiles);
        next.template start<1>(tiles);
        next.template start<2>(tiles);
        next.template start<3>(tiles);
        // The next chunk of every panel, or the first of the panels that follow in memory, arrives during this one.
        index_t const ahead = last < w.cols() ? last * w.panel_bytes() / w.cols() : count * w.panel_bytes();
        index_t const lines = ceil_div(shape::chunk * w.panel_bytes() / w.cols(), config::cache_line * blocks);
        index_t const lines_a_step = ceil_div(lines, round_up(ceil_div(last - first, shape::segment), 4));
        for (index_t b = 0; b < blocks; ++b)
            for (index_t q = 0; q < count; ++q) {
                std::byte const* const panel = data + q * w.panel_bytes();
                product_block_amx<Arch>(tiles, w, panel, x, minimum(m0 + 16 * b, m1 - 16), first, last, next, part(b, q),
                                        {panel + ahead + b * lines * config::cache_line, lines_a_step});
            }
    }
    for (index_t m = m0; m < m1; ++m) {
        index_t const b = (m - m0) / 16;
        index_t const row = m - minimum(m0 + 16 * b, m1 - 16);
        for (index_t q = 0; q < count; ++q) {
            floats value = floats::load_aligned(part(b, q) + row * 16);
            if constexpr (Form::scale_group == 0) value = value * floats(x.scale(m, 0));
            emit(q, m, value);
        }
    }
}

/// The last segment of a panel, shorter than others.
template <class Arch, class Weights, class Form>
TESSERA_COLD void unpack_tail_amx(Weights const& w, std::byte const* data, index_t k, std::int8_t* out) noexcept {
    unpack_chunk_amx<Arch, Weights, Form>(w, data, k, w.cols(), out);
}

/// One segment of a panel, from column k, as signed bytes: most often a constant number of vectors. Every line
/// is asked for twice, into the first-level cache not far ahead and into the second-level one shortly before use, which costs nothing if
/// it is there: the processor's own prefetching does the rest, and lines asked for pages ahead disturb it.
template <class Arch, class Weights, class Form>
TESSERA_FORCE_INLINE void unpack_segment_amx(Weights const& w, std::byte const* data, index_t k, std::int8_t* out) noexcept {
    using source = typename Weights::source;
    constexpr index_t segment = amx_shape<Weights, Form>::segment;
    constexpr index_t first = 1536, second = 256; // bytes ahead
    if (k + segment > w.cols()) return unpack_tail_amx<Arch, Weights, Form>(w, data, k, out);
    index_t const g = k / w.group();
    std::byte const* const codes = data + w.codes_offset(g) + Weights::strip_offset(k - g * w.group());
    if (k == g * w.group() && Weights::within_record(g) == 0) {
        std::byte const* const head = data + w.record_offset(g);
        for (index_t line = 0; line < Weights::head_bytes; line += config::cache_line) {
            simd::prefetch_level_2(head + line + second);
            simd::prefetch(head + line + first);
        }
    }
#pragma GCC unroll 16
    for (index_t v = 0; v < segment / Weights::strip_columns * Weights::strip_bytes; v += Weights::vector_bytes) {
        simd::prefetch_level_2(codes + v + second);
        simd::prefetch(codes + v + first);
    }
#pragma GCC unroll 4
    for (index_t s = 0; s < segment / Weights::strip_columns; ++s) {
        if constexpr (source::offset == offset_kind::zero_point)
            out = simd::unpack_signed<Arch, Weights>(codes + s * Weights::strip_bytes, group_zero_points<Arch>(w, data, g), out);
        else
            out = simd::unpack_signed<Arch, Weights>(codes + s * Weights::strip_bytes, out);
    }
}

/// Panels that stream by, one after the other in memory: what they are multiplied with, and where segments wait for their tiles.
/// A panel is filled up to whole turns of the slots with empty segments. Near its end segments of the next one are unpacked and
/// started, so that neither memory nor tiles wait between panels.
template <class Arch, class Weights, class Form, int Rows>
struct panel_stream_amx {
    using shape = amx_shape<Weights, Form>;
    using sums = std::int32_t[2][256];
    static constexpr index_t segment = shape::segment;
    static constexpr int slots = shape::stream_slots;

    Weights const& w;
    Form const& x;
    index_t m, rows;
    std::int8_t const* x_codes; // row m
    index_t x_stride;
    index_t end;        // of a panel's segments, empty ones too
    std::int8_t* codes; // slots segments
    float* total;
    std::byte const* data = nullptr;
    std::byte const* next = nullptr; // the panel after this one, if it follows

    TESSERA_FORCE_INLINE std::int8_t* slot(index_t s) const noexcept { return codes + s * segment * 16; }
    /// The segment at column k, or the next panel's behind the end.
    TESSERA_FORCE_INLINE void unpack(index_t k, index_t s) const noexcept {
        bool const is_next = k >= end;
        std::byte const* const from = is_next ? next : data;
        index_t const column = is_next ? k - end : k;
        if (from != nullptr && column < w.cols()) unpack_segment_amx<Arch, Weights, Form>(w, from, column, slot(s));
    }
    template <int Slot, class Tiles>
    TESSERA_FORCE_INLINE void start(Tiles const& tiles, index_t k) const noexcept {
        bool const is_next = k >= end;
        if (is_next && next == nullptr) return;
        index_t const column = is_next ? k - end : k;
        index_t const columns = minimum(segment, w.cols() - column);
        index_t const steps = segment == shape::depth ? 1 : ceil_div(columns, shape::depth);
        if (columns > 0) tiles.template start<Slot % 4>(x_codes + column, x_stride, slot(Slot), steps);
    }
    /// The segment at column k is done, the fourth from there starts, the last slot's is unpacked.
    template <int Slot, class Tiles>
    TESSERA_FORCE_INLINE void step(Tiles const& tiles, index_t k, sums& sum, simd::floats<Arch> (&result)[Rows]) const noexcept {
        bool const is_there = k < w.cols();
        if (is_there) tiles.template store<Slot % 4>(sum[Slot % 2]);
        start<(Slot + 4) % slots>(tiles, k + 4 * segment);
        unpack(k + (slots - 1) * segment, (Slot + slots - 1) % slots);
        if (is_there) add_segment_amx<Arch>(w, data, x, m, rows, k, sum[Slot % 2], result, total);
    }
    /// The segments of all slots, from column k. A slot's place is a constant.
    template <class Tiles, int... Slot>
    TESSERA_FORCE_INLINE void turn(Tiles const& tiles, index_t k, sums& sum, simd::floats<Arch> (&result)[Rows],
                                   std::integer_sequence<int, Slot...>) const noexcept {
        (step<Slot>(tiles, k + Slot * segment, sum, result), ...);
    }
};

/// Few rows of x, `rows` of at most Rows from m, by `count` panels: their codes are unpacked as they come from memory, a segment
/// for each that is multiplied, so that memory, tiles and vectors work at the same time. emit(panel, m, value) for each row.
template <int Rows, class Arch, class Weights, class Form, class Emit>
void stream_panels_amx(Weights const& w, std::byte const* data, index_t count, Form const& x, index_t m, index_t rows,
                       std::byte* scratch, Emit const& emit) noexcept {
    using shape = amx_shape<Weights, Form>;
    using floats = simd::floats<Arch>;
    using stream = panel_stream_amx<Arch, Weights, Form, Rows>;
    constexpr index_t turn = stream::slots * shape::segment;
    simd::amx_tiles<shape::depth> const tiles{rows};
    alignas(64) typename stream::sums sums = {};
    auto* const sum = reinterpret_cast<float*>(scratch);
    auto* const codes = reinterpret_cast<std::int8_t*>(scratch + 16 * 16 * sizeof(float));
    stream panel{w, x, m, rows, x.row(m), Form::stride_of(x.columns), round_up(w.cols(), turn), codes, sum};
    for (index_t q = 0; q < count; ++q) {
        panel.data = data + q * w.panel_bytes();
        panel.next = q + 1 < count ? panel.data + w.panel_bytes() : nullptr;
        if (q == 0) {
            for (index_t s = 0; s < stream::slots - 1; ++s) panel.unpack(s * shape::segment, s);
            panel.template start<0>(tiles, 0);
            panel.template start<1>(tiles, shape::segment);
            panel.template start<2>(tiles, 2 * shape::segment);
            panel.template start<3>(tiles, 3 * shape::segment);
        }
        floats result[Rows];
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) result[r] = floats(0.0f);
        for (index_t k = 0; k < panel.end; k += turn)
            panel.turn(tiles, k, sums, result, std::make_integer_sequence<int, stream::slots>{});
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) result[r].store_aligned(sum + 16 * r);
        for (index_t r = 0; r < rows; ++r) {
            floats value = floats::load_aligned(sum + 16 * r);
            if constexpr (Form::scale_group == 0) value = value * floats(x.scale(m + r, 0));
            emit(q, m + r, value);
        }
    }
}

#endif

} // namespace tessera::inline TESSERA_ABI::detail
