// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kernel<op::apply, cuda<Sm>, ...>` of products of bytes: 8-bit floats with a scale for every 128 x 128 weights times
/// `fp8_per_group<128>`, int8 with a scale a row and int4 in groups times `int8_per_token`, on sm_90a in device tiles and nibbles.
/// `fp8_per_group` with other storage, or another processor, multiplies what x becomes by device panels, in float32.

#include "byte_prepare.cuh"
#include "byte_product.cuh"
#include "linear.cuh"
#include "nibble_product.cuh"

#include <algorithm>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The arithmetic of a storage in device tiles with a preparation; void: there is none.
template <int Sm, class Storage, class Preparation>
struct select_byte_arithmetic {
    using type = void;
};
template <class Format, class G, class Scale, class XFormat>
    requires(is_float8_tile<quantized<scheme<Format, G, Scale, symmetric>>> && is_unit_float8<XFormat>)
struct select_byte_arithmetic<90, quantized<scheme<Format, G, Scale, symmetric>>, fp8_per_group<128, XFormat>> {
    using type = float8_arithmetic<XFormat, Format>;
};
template <class G, class Scale>
    requires(is_int8_tile<quantized<scheme<int8, G, Scale, symmetric>>>)
struct select_byte_arithmetic<90, quantized<scheme<int8, G, Scale, symmetric>>, int8_per_token> {
    using type = int8_arithmetic;
};
template <index_t G, class Scale>
    requires(is_nibbles<quantized<scheme<int4, group<G>, Scale, symmetric>>>)
struct select_byte_arithmetic<90, quantized<scheme<int4, group<G>, Scale, symmetric>>, int8_per_token> {
    using type = int8_arithmetic;
};
template <int Sm, class Storage, class Preparation>
using byte_arithmetic = typename select_byte_arithmetic<Sm, Storage, Preparation>::type;

/// The layout that goes with it.
template <class Storage>
using byte_layout = std::conditional_t<is_nibbles<Storage>, device_nibbles, device_tile>;

/// Rows of x in bytes: whole tiles of 128, 192 and 256.
constexpr index_t byte_rows(index_t m) noexcept { return maximum(round_up(m, 256), round_up(m, 192)); }

/// What a call knows of its tiles: how many there are, and what they take in relation to those of 256 rows of x by 256 of W.
struct byte_plan {
    index_t x_tiles;
    index_t w_tiles;
    double cost;
};
template <class Shape>
byte_plan plan_bytes(index_t m, index_t n, double cost) noexcept {
    byte_plan const p{ceil_div(m, Shape::rows), ceil_div(n, 2 * Shape::n), 0};
    return {p.x_tiles, p.w_tiles, cost * static_cast<double>(ceil_div(p.x_tiles * p.w_tiles, byte_clusters))};
}

template <class Arithmetic, class Shape, int Sm, class Out>
void launch_bytes(cuda<Sm> const& exec, byte_arguments p, byte_plan const& plan, Out const& out) {
    p.x_tiles = static_cast<int>(plan.x_tiles);
    p.w_tiles = static_cast<int>(plan.w_tiles);
    p.tiles = p.x_tiles * p.w_tiles;
    auto const clusters = static_cast<unsigned>(minimum(p.tiles, byte_clusters));
    launch("apply", stream_of(exec), {dim3(2 * clusters), dim3(Shape::threads), byte_stage<Arithmetic, Shape>::shared_bytes, true, 2},
           &byte_kernel<Arithmetic, Shape, Out>, p, out);
}

/// Rows whose elements lie side by side in whole, aligned 16 bytes.
template <class T>
bool has_wide_rows(matrix_view<T> const& y) noexcept {
    constexpr auto bytes = static_cast<index_t>(sizeof(T));
    return has_unit_stride(y) && y.extent(1) % 8 == 0 && (y.extent(0) <= 1 || y.stride(0) * bytes % 16 == 0) &&
           reinterpret_cast<std::uintptr_t>(y.data_handle()) % 16 == 0;
}

/// What kernels know of a product, but for W.
template <class W, class Out>
byte_arguments describe_bytes(W const& w, index_t m, std::byte const* x, float const* scales, index_t x_tiles, index_t w_tiles, Out const& out) noexcept {
    byte_arguments p{};
    p.x = x;
    p.x_scales = scales;
    p.rows = static_cast<int>(byte_rows(m));
    p.m = static_cast<int>(m);
    p.n = static_cast<int>(w.rows());
    p.steps = static_cast<int>(w.column_blocks());
    p.x_tiles = static_cast<int>(x_tiles);
    p.w_tiles = static_cast<int>(w_tiles);
    p.tiles = static_cast<int>(x_tiles * w_tiles);
    p.is_wide = has_wide_rows(out.y) && out.base == nullptr;
    return p;
}

/// y = x Wᵀ for x in bytes.
template <class Arithmetic, int Sm, class Storage, class Out>
void run_byte_product(cuda<Sm> const& exec, prepacked<device_tile, Storage> const& w, index_t m, std::byte const* x, float const* scales, Out const& out) {
    byte_arguments p = describe_bytes(w, m, x, scales, 0, 0, out);
    p.w = w.data();
    p.w_scales = w.scales();
    using large = byte_shape<2, 2, 128>;
    using three = byte_shape<3, 1, 128>; // which need no more time for their rows, and may need fewer rounds of tiles
    using middle = byte_shape<2, 1, 128>;
    using small = byte_shape<2, 1, 64>;
    byte_plan const of_large = plan_bytes<large>(m, w.rows(), 1.0);
    byte_plan const of_middle = plan_bytes<middle>(m, w.rows(), 0.59);
    byte_plan const of_small = plan_bytes<small>(m, w.rows(), 0.4);
    double const least = std::min({of_large.cost, of_middle.cost, of_small.cost});
    if constexpr (Arithmetic::has_step_scales) {
        byte_plan const of_three = plan_bytes<three>(m, w.rows(), 0.76);
        if (of_three.cost < least) return launch_bytes<Arithmetic, three>(exec, p, of_three, out);
    }
    if (of_large.cost <= least)
        launch_bytes<Arithmetic, large>(exec, p, of_large, out);
    else if (of_middle.cost <= least)
        launch_bytes<Arithmetic, middle>(exec, p, of_middle, out);
    else
        launch_bytes<Arithmetic, small>(exec, p, of_small, out);
}

template <int Waves, int N, int Sm, class Nibbles, class Out>
void launch_nibbles(cuda<Sm> const& exec, Nibbles const& w, byte_arguments const& of, Out const& out) {
    nibble_arguments<Nibbles> const p{w, of};
    launch("apply", stream_of(exec),
           {dim3(static_cast<unsigned>(minimum(of.tiles, nibble_blocks))), dim3(384), nibble_stage<Nibbles, Waves, N>::shared_bytes, true},
           &nibble_kernel<Nibbles, Waves, N, Out>, p, out);
}
/// The same of int4: tiles of 256 rows of W by 128 of x, or of 128 by 32, which take about a third of the time.
template <class Arithmetic, int Sm, class Storage, class Out>
void run_byte_product(cuda<Sm> const& exec, prepacked<device_nibbles, Storage> const& w, index_t m, std::byte const* x, float const* scales, Out const& out) {
    index_t const large = ceil_div(m, 128) * ceil_div(w.rows(), 256);
    index_t const small = ceil_div(m, 32) * ceil_div(w.rows(), 128);
    if (3 * ceil_div(large, nibble_blocks) <= ceil_div(small, nibble_blocks))
        launch_nibbles<2, 128>(exec, w, describe_bytes(w, m, x, scales, ceil_div(m, 128), ceil_div(w.rows(), 256), out), out);
    else
        launch_nibbles<1, 32>(exec, w, describe_bytes(w, m, x, scales, ceil_div(m, 32), ceil_div(w.rows(), 128), out), out);
}

/// x in bytes.
template <class Arithmetic, int Sm, class X>
void prepare_bytes(cuda<Sm> const& exec, matrix_view<X const> const& x, std::byte* bytes, float* scales) {
    index_t const rows = byte_rows(x.extent(0));
    index_t const blocks = ceil_div(x.extent(1), 128);
    auto* const to = reinterpret_cast<::uint4*>(bytes);
    if constexpr (Arithmetic::has_step_scales)
        launch("apply", stream_of(exec), {grid_of(rows * blocks * 8), dim3(256), 0, true}, &fp8_tile_kernel<typename Arithmetic::x_format, X>, x,
               has_wide_rows(x), static_cast<int>(rows), static_cast<int>(blocks), to, scales);
    else
        launch("apply", stream_of(exec), {grid_of(rows, 1), dim3(256), 0, true}, &int8_tile_kernel<X>, x, has_wide_rows(x),
               static_cast<int>(rows), static_cast<int>(blocks), to, scales);
}

} // namespace detail

namespace detail {

/// `kernel<op::apply, ...>` of what is placed for products of bytes.
template <int Sm, class Layout, class Storage, class Preparation>
struct byte_kernels {
    using operand = linear<prepacked<Layout, Storage>, Preparation>;
    using arithmetic = byte_arithmetic<Sm, Storage, Preparation>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        if (w.cols() == 0) {
            if constexpr (launches<Arena>) finish_nothing(exec, x.extent(0), w.rows(), out);
            return;
        }
        index_t const rows = byte_rows(x.extent(0));
        index_t const blocks = w.storage().column_blocks();
        auto* const bytes = arena.template carve<std::byte>(blocks, rows, 128);
        auto* const scales = arena.template carve<float>(arithmetic::has_step_scales ? blocks : 1, rows);
        if constexpr (launches<Arena>) {
            check::within("apply", "rows of W", w.rows(), 0, index_t{1} << 30);
            check::within("apply", "rows of x", x.extent(0), 0, index_t{1} << 24);
            constexpr bool sums_rows = !arithmetic::has_step_scales && std::is_same_v<Layout, device_tile>; // in int32
            check::within("apply", "columns of W", w.cols(), 0, sums_rows ? index_t{1} << 17 : index_t{1} << 24);
            prepare_bytes<arithmetic>(exec, x, bytes, scales);
            run_byte_product<arithmetic>(exec, w.storage(), x.extent(0), bytes, scales, out);
        }
    }
};

/// An element of W, for the transpose.
template <class Storage>
__device__ __forceinline__ float panel_element(prepacked<device_tile, Storage> const& w, decode_table<device_format<Storage>> const& table, index_t n, index_t k) {
    auto const code = static_cast<std::uint8_t>(w.data()[w.locate(n, k)]);
    float const scale = w.scales()[w.scale_index(n, k)];
    if constexpr (prepacked<device_tile, Storage>::is_float8)
        return scale * table.values[code];
    else
        return scale * static_cast<float>(static_cast<std::int8_t>(code));
}
template <class Storage>
__device__ __forceinline__ float panel_element(prepacked<device_nibbles, Storage> const& w, decode_table<device_format<Storage>> const&, index_t n, index_t k) {
    auto const at = w.locate(n, k);
    auto const code = static_cast<unsigned>(w.data()[at.byte]) >> at.bit << 28;
    return static_cast<float>(w.scales()[w.scale_index(n, k)]) * static_cast<float>(static_cast<int>(code) >> 28);
}

/// `kernel<op::apply, ...>` of its transpose: in float32, as device panels' (x is not prepared).
template <int Sm, class Layout, class Storage, class Preparation>
struct transposed_byte_kernels {
    using operand = transposed_operator<linear<prepacked<Layout, Storage>, Preparation>>;
    static constexpr index_t rows_of_pass = 64;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& t, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        auto const& w = t.inner().storage();
        using tiles = prepacked<Layout, Storage>;
        if (w.rows() == 0) {
            if constexpr (launches<Arena>) finish_nothing(exec, x.extent(0), w.cols(), out);
            return;
        }
        index_t const count = ceil_div(w.rows(), 256);
        float* const partial = arena.template carve<float>(count, minimum(x.extent(0), rows_of_pass), w.cols());
        if constexpr (launches<Arena>) {
            auto const table = make_decode_table<typename tiles::format>();
            for (index_t m = 0; m < x.extent(0); m += rows_of_pass) {
                matrix_view<X const> const part = tessera::rows(x, m, minimum(m + rows_of_pass, x.extent(0)));
                launch("apply", stream_of(exec),
                       {dim3(static_cast<unsigned>(ceil_div(w.cols(), 128)), static_cast<unsigned>(ceil_div(part.extent(0), 8)), static_cast<unsigned>(count)), dim3(128)},
                       &transposed_kernel<tiles, X>, w, table, part, partial);
                launch("apply", stream_of(exec), {grid_of(part.extent(0) * w.cols())}, &add_partials_kernel<Out>, partial, count, part.extent(0), w.cols(), m, out);
            }
        }
    }
};

} // namespace detail

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, linear<prepacked<device_tile, Storage>, Preparation>> : detail::byte_kernels<Sm, device_tile, Storage, Preparation> {};
template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, linear<prepacked<device_nibbles, Storage>, Preparation>> : detail::byte_kernels<Sm, device_nibbles, Storage, Preparation> {
};

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, transposed_operator<linear<prepacked<device_tile, Storage>, Preparation>>>
    : detail::transposed_byte_kernels<Sm, device_tile, Storage, Preparation> {};
template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, transposed_operator<linear<prepacked<device_nibbles, Storage>, Preparation>>>
    : detail::transposed_byte_kernels<Sm, device_nibbles, Storage, Preparation> {};

template <int Sm, class Storage, index_t N, class Format>
struct kernel<op::apply, cuda<Sm>, linear<prepacked<device_panel, Storage>, fp8_per_group<N, Format>>> {
    using operand = linear<prepacked<device_panel, Storage>, fp8_per_group<N, Format>>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        if (w.cols() == 0) {
            if constexpr (detail::launches<Arena>) detail::finish_nothing(exec, x.extent(0), w.rows(), out);
            return;
        }
        float* const values = arena.template carve<float>(x.extent(0), x.extent(1));
        if constexpr (detail::launches<Arena>)
            detail::launch("apply", detail::stream_of(exec),
                           {detail::grid_of(x.extent(0) * ceil_div(x.extent(1), N), 1), dim3(32)},
                           &detail::fp8_values_kernel<Format, X>, x, N, values);
        detail::run_panels<Sm, as_is>(exec, w.storage(), matrix_view<float const>{values, x.extent(0), x.extent(1)}, out, arena);
    }
};

} // namespace tessera::inline TESSERA_ABI
