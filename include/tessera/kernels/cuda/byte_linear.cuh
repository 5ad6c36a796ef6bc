// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kernel<op::apply, cuda<Sm>, ...>` of products of bytes: 8-bit floats with a scale for every 128 x 128 weights times
/// `fp8_per_group<128>`, and int8 with a scale a row times `int8_per_token`, on sm_90a in device tiles. `fp8_per_group` with other
/// storage, or another processor, multiplies what x becomes by device panels, in float32.

#include "byte_prepare.cuh"
#include "byte_product.cuh"
#include "linear.cuh"

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
template <int Sm, class Storage, class Preparation>
using byte_arithmetic = typename select_byte_arithmetic<Sm, Storage, Preparation>::type;

/// What a call knows of its tiles: which kernel, and of how many.
struct byte_plan {
    bool is_large; ///< 256 rows of x by twice 128 of W, not 128 by twice 64
    index_t x_tiles;
    index_t w_tiles;
};
/// The faster one: a small tile takes a quarter of the multiplications of a large one, and about half its time.
inline byte_plan plan_bytes(index_t m, index_t n) noexcept {
    byte_plan const large{true, ceil_div(m, 256), ceil_div(n, 256)};
    byte_plan const small{false, ceil_div(m, 128), ceil_div(n, 128)};
    index_t const of_large = 2 * ceil_div(large.x_tiles * large.w_tiles, byte_clusters);
    index_t const of_small = ceil_div(small.x_tiles * small.w_tiles, byte_clusters);
    return of_large <= of_small ? large : small;
}

template <class Arithmetic, int Waves, int N, int Sm, class Out>
void launch_bytes(cuda<Sm> const& exec, byte_arguments const& p, Out const& out) {
    auto const clusters = static_cast<unsigned>(minimum(p.tiles, byte_clusters));
    launch("apply", stream_of(exec), {dim3(2 * clusters), dim3(384), byte_stage<Arithmetic, Waves, N>::shared_bytes, true, 2},
           &byte_kernel<Arithmetic, Waves, N, Out>, p, out);
}

/// Rows whose elements lie side by side in whole, aligned 16 bytes.
template <class T>
bool has_wide_rows(matrix_view<T> const& y) noexcept {
    constexpr auto bytes = static_cast<index_t>(sizeof(T));
    return has_unit_stride(y) && y.extent(1) % 8 == 0 && (y.extent(0) <= 1 || y.stride(0) * bytes % 16 == 0) &&
           reinterpret_cast<std::uintptr_t>(y.data_handle()) % 16 == 0;
}

/// y = x Wᵀ for x in bytes.
template <class Arithmetic, int Sm, class Tiles, class Out>
void run_byte_product(cuda<Sm> const& exec, Tiles const& w, index_t m, std::byte const* x, float const* scales, Out const& out) {
    byte_plan const plan = plan_bytes(m, w.rows());
    byte_arguments const p{w.data(),
                           w.scales(),
                           x,
                           scales,
                           static_cast<int>(round_up(m, 256)),
                           static_cast<int>(m),
                           static_cast<int>(w.rows()),
                           static_cast<int>(w.column_blocks()),
                           static_cast<int>(plan.x_tiles),
                           static_cast<int>(plan.x_tiles * plan.w_tiles),
                           static_cast<int>(plan.w_tiles),
                           has_wide_rows(out.y)};
    if (plan.is_large)
        launch_bytes<Arithmetic, 2, 128>(exec, p, out);
    else
        launch_bytes<Arithmetic, 1, 64>(exec, p, out);
}

/// x in bytes.
template <class Arithmetic, int Sm, class X>
void prepare_bytes(cuda<Sm> const& exec, matrix_view<X const> const& x, std::byte* bytes, float* scales) {
    index_t const rows = round_up(x.extent(0), 256);
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

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, linear<prepacked<device_tile, Storage>, Preparation>> {
    using operand = linear<prepacked<device_tile, Storage>, Preparation>;
    using arithmetic = detail::byte_arithmetic<Sm, Storage, Preparation>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        if (w.cols() == 0) {
            if constexpr (detail::launches<Arena>) detail::finish_nothing(exec, x.extent(0), w.rows(), out);
            return;
        }
        index_t const rows = round_up(x.extent(0), 256);
        index_t const blocks = w.storage().column_blocks();
        auto* const bytes = arena.template carve<std::byte>(blocks, rows, 128);
        auto* const scales = arena.template carve<float>(arithmetic::has_step_scales ? blocks : 1, rows);
        if constexpr (detail::launches<Arena>) {
            check::within("apply", "rows of W", w.rows(), 0, index_t{1} << 30);
            check::within("apply", "rows of x", x.extent(0), 0, index_t{1} << 24);
            check::within("apply", "columns of W", w.cols(), 0, arithmetic::has_step_scales ? index_t{1} << 24 : index_t{1} << 17); // int32 sums
            detail::prepare_bytes<arithmetic>(exec, x, bytes, scales);
            detail::run_byte_product<arithmetic>(exec, w.storage(), x.extent(0), bytes, scales, out);
        }
    }
};

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
                           {dim3(static_cast<unsigned>(ceil_div(x.extent(1), N)), static_cast<unsigned>(x.extent(0))), dim3(32)},
                           &detail::fp8_values_kernel<Format, X>, x, N, values);
        detail::run_panels<Sm, as_is>(exec, w.storage(), matrix_view<float const>{values, x.extent(0), x.extent(1)}, out, arena);
    }
};

} // namespace tessera::inline TESSERA_ABI
