// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Quantising, and Hadamard transforms, on CUDA devices, with device memory:
///
///     device_quantized<int4_g128> q{n, k};
///     quantize(exec, w, q);                                        // the bits of quant/quantize.hpp with its default options
///     rms_norm_quantize(exec, x, weight, epsilon, codes);          // a norm, then one scale a row, without writing the norm
///     rms_norm_rotate_quantize(exec, x, weight, epsilon, 128, codes); // a Hadamard rotation (over the root of its order) between them
///     walsh_hadamard(exec, x, y, group);                           // alone, not normalised
///
/// Symmetric schemes with scales of one level (not of doubles' range searches): groups of 8, 16, ..., 256 columns, or one scale a
/// row of at most 32768 columns. Rotations here are of powers of two up to 16384. Everything is float32 inside; a rotation's sums have log2
/// of the order roundings each. A row with a NaN or an infinity has a NaN scale.

#include "../kernels/cuda/hadamard.cuh"
#include "../kernels/cuda/quantize_rows.cuh"
#include "../nn/nn.cuh"
#include "../storage/device_memory.cuh"

namespace tessera::inline TESSERA_ABI {

/// A quantised matrix on a device: owner of codes and scales. Moves, does not copy.
template <class Scheme>
class device_quantized {
    static_assert(!Scheme::has_two_levels && !Scheme::is_affine, "tessera: device_quantized holds symmetric schemes with scales of one level");

public:
    using view_type = quantized<Scheme>;
    using scale_type = typename view_type::scale_type;

    device_quantized() noexcept = default;
    device_quantized(index_t n, index_t k)
        : rows_{checked(n)}, cols_{checked(k)}, codes_{detail::saturated_product(n, bitpack::bytes(k, Scheme::format::bits))},
          scales_{detail::saturated_product(view_type::scale_rows(n), view_type::scale_columns(k))} {}

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const noexcept { return codes_.bytes() + scales_.bytes(); }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    std::uint8_t const* codes() const noexcept { return codes_.data(); }
    scale_type* scales() noexcept { return scales_.data(); }
    scale_type const* scales() const noexcept { return scales_.data(); }
    /// For kernels: its arrays are the device's.
    view_type view() const& { return view_type{codes_.data(), scales_.data(), nullptr, rows_, cols_}; }
    void view() const&& = delete;

private:
    static index_t checked(index_t n) {
        check::within("device_quantized", "extent", n, 0, index_t{1} << 40);
        return n;
    }

    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    device_buffer<std::uint8_t> codes_;
    device_buffer<scale_type> scales_;
};

namespace detail {

template <class Scheme>
quantize_output<Scheme> output_of(device_quantized<Scheme>& q) {
    constexpr int bits = Scheme::format::bits;
    index_t const row_bytes = bitpack::bytes(q.cols(), bits);
    return {q.codes(), q.scales(), static_cast<int>(row_bytes), static_cast<int>(quantized<Scheme>::scale_columns(q.cols())), row_bytes % bits == 0};
}

template <class X, class Scheme>
void check_quantize(char const* operation, matrix_view<X const> const& x, device_quantized<Scheme> const& q) {
    check::equal(operation, "rows of q", q.rows(), x.extent(0), "rows of x");
    check::equal(operation, "columns of q", q.cols(), x.extent(1), "columns of x");
    check::within(operation, "columns of x", x.extent(1), 0, index_t{1} << 30);
    check_rows(operation, "x", x);
}

/// Threads and chunks of 8 numbers each for a row in registers; the norm's own shape where it fits.
struct row_shape {
    unsigned threads;
    int chunks;
};
inline row_shape shape_of_row(char const* operation, index_t n) {
    check::within(operation, "columns of x", n, 0, 32768);
    auto threads = row_threads(n, 8).x;
    if (ceil_div(n, index_t{8} * threads) > 4) threads = static_cast<unsigned>(round_up(ceil_div(n, 32), 32));
    auto const chunks = static_cast<int>(ceil_div(n, index_t{8} * threads));
    return {threads, chunks <= 1 ? 1 : chunks <= 2 ? 2 : 4};
}

/// Blocks that a device runs at once.
inline index_t resident_blocks(char const* operation, unsigned of_a_multiprocessor) {
    int device = 0;
    int count = 0;
    check_cuda(operation, "cudaGetDevice", cudaGetDevice(&device));
    check_cuda(operation, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return index_t{count} * of_a_multiprocessor;
}

/// Rows that move 8 numbers at a time, up to 8192 columns, with rotations within warps or of whole rows of 4096: whether they were.
template <class Scheme, int Sm, class X, class Change>
bool run_wide_rows(char const* operation, cuda<Sm> const& exec, matrix_view<X const> const& x, Change const& change, device_quantized<Scheme>& q) {
    index_t const n = x.extent(1);
    int order = 1;
    if constexpr (!std::is_same_v<Change, no_change>) order = change.hadamard;
    if (n > 8192) return false;
    unsigned const threads = row_threads(n, 8).x;
    auto const start = [&](auto* kernel, unsigned block, unsigned of_a_multiprocessor) {
        index_t const grid = minimum(x.extent(0), resident_blocks(operation, minimum(of_a_multiprocessor, 32u)));
        launch(operation, stream_of(exec), {dim3(static_cast<unsigned>(grid)), dim3(block)}, kernel, x, change, output_of(q));
    };
    auto const choose = [&]<row_rotation Rotation>(std::integral_constant<row_rotation, Rotation>) {
        constexpr int of_a_multiprocessor = Rotation == row_rotation::none ? 5 : 4; // blocks of 128: weights stay in registers too
        constexpr row_rotation of_quads = Rotation == row_rotation::in_warps ? row_rotation::in_quads : Rotation;
        if (threads % 64 == 0 && threads <= 256)
            start(&wide_row_kernel<4, 2, 128, of_a_multiprocessor, of_quads, Scheme, X, Change>, threads / 2, 256 * of_a_multiprocessor / threads);
        else
            start(&wide_row_kernel<2, 1, 512, 2, Rotation, Scheme, X, Change>, threads, 1024 / threads);
    };
    if (order == 1) {
        choose(std::integral_constant<row_rotation, row_rotation::none>{});
        return true;
    }
    if constexpr (!std::is_same_v<Change, no_change>) {
        if (order <= 256) {
            choose(std::integral_constant<row_rotation, row_rotation::in_warps>{});
            return true;
        }
        if constexpr (Scheme::format::bits == 4 || Scheme::format::bits == 8)
            if (order == 4096 && n == 4096) {
                start(&wide_row_kernel<4, 2, 128, 4, row_rotation::of_4096, Scheme, X, Change>, 128, 4);
                return true;
            }
    }
    return false;
}

template <class Scheme, int Sm, class X, class Change>
void run_rows(char const* operation, cuda<Sm> const& exec, matrix_view<X const> const& x, Change const& change, device_quantized<Scheme>& q, bool is_wide,
              bool is_shared) {
    if (is_wide && run_wide_rows<Scheme>(operation, exec, x, change, q)) return;
    row_shape const shape = shape_of_row(operation, x.extent(1));
    auto const start = [&](auto* kernel) {
        launch(operation, stream_of(exec),
               {dim3(static_cast<unsigned>(x.extent(0))), dim3(shape.threads), is_shared ? index_t{shape.threads} * shape.chunks * 32 : 0}, kernel, x, change,
               output_of(q));
    };
    auto const choose = [&]<int Chunks>(std::integral_constant<int, Chunks>) {
        is_wide ? start(&quantize_row_kernel<Chunks, true, Scheme, X, Change>) : start(&quantize_row_kernel<Chunks, false, Scheme, X, Change>);
    };
    if (shape.chunks == 1)
        choose(std::integral_constant<int, 1>{});
    else if (shape.chunks == 2)
        choose(std::integral_constant<int, 2>{});
    else
        choose(std::integral_constant<int, 4>{});
}

inline void check_power(char const* operation, index_t order, index_t columns) {
    check::within(operation, "order of the rotation", order, 1, 16384);
    if ((order & (order - 1)) != 0)
        raise<unsupported_error>("tessera: " + std::string{operation} + ": the order of the rotation is " + std::to_string(order) +
                                 ", expected a power of two on CUDA devices");
    check::multiple(operation, "columns of x", columns, order);
}

template <class Scheme, int Sm, class X, class W>
void run_rms_norm_quantize(char const* operation, cuda<Sm> const& exec, matrix_view<X const> const& x, vector_view<W const> const& w, float epsilon,
                           index_t order, device_quantized<Scheme>& q) {
    static_assert(Scheme::granularity_type::rows == 1 && Scheme::granularity_type::columns == 0,
                  "tessera: rms_norm_quantize: a row has one scale (per_channel)");
    check_quantize(operation, x, q);
    check_per_column(operation, "weight", w, x);
    check_epsilon(operation, epsilon);
    check_power(operation, order, x.extent(1));
    if (x.empty()) return;
    check_rows_there<Sm>(operation, "x\0weight", x, w);
    check_owned_memory(operation, "q", q.scales(), x.size());
    rms_change<W> const change{w.data_handle(), epsilon, static_cast<int>(order)};
    run_rows(operation, exec, x, change, q, moves_packs(x) && moves_packs(w), order > 256);
}

} // namespace detail

/// w (n, k) of float, fp16 or bf16 in `Scheme`.
template <int Sm, class Scheme>
void quantize(cuda<Sm> const& exec, matrix_argument auto const& w, device_quantized<Scheme>& q) {
    auto const x = detail::input<cuda<Sm>>(w);
    using element = typename decltype(x)::value_type;
    constexpr index_t group = Scheme::granularity_type::columns;
    static_assert(Scheme::granularity_type::rows == 1, "tessera: quantize: cuda<Sm> has kernels for groups of a row and whole rows");
    detail::check_quantize("quantize", x, q);
    if (x.empty()) return;
    detail::check_rows_there<Sm>("quantize", "w", x);
    detail::check_owned_memory("quantize", "q", q.scales(), x.size());
    bool const is_wide = detail::moves_packs(x);
    if constexpr (group == 0) {
        detail::run_rows("quantize", exec, x, detail::no_change{}, q, is_wide, false);
    } else {
        static_assert(group >= 8 && group <= 256 && (group & (group - 1)) == 0,
                      "tessera: quantize: cuda<Sm> has kernels for groups of 8, 16, 32, 64, 128 and 256");
        constexpr int lanes = static_cast<int>(group / 8);
        if (is_wide && x.extent(1) % group == 0 && (x.extent(0) <= 1 || x.stride(0) == x.extent(1))) {
            constexpr int packs = group >= 128 ? 4 : 1;
            constexpr int several = group >= 128 ? 1 : 2;
            index_t const groups = x.extent(0) * x.extent(1) / group;
            detail::launch("quantize", detail::stream_of(exec), {dim3(static_cast<unsigned>(ceil_div(groups, 256 / (lanes / packs) * several)))},
                           &detail::whole_group_kernel<lanes / packs, packs, several, Scheme, element>, x.data_handle(), groups, detail::output_of(q));
            return;
        }
        index_t const row_packs = ceil_div(x.extent(1), group) * lanes;
        index_t const threads = minimum(256, round_up(ceil_div(row_packs, 2), 32));
        index_t const row_blocks = ceil_div(row_packs, 2 * threads);
        detail::launch("quantize", detail::stream_of(exec), {dim3(static_cast<unsigned>(row_blocks * x.extent(0))), dim3(static_cast<unsigned>(threads))},
                       is_wide ? &detail::quantize_group_kernel<lanes, true, Scheme, element> : &detail::quantize_group_kernel<lanes, false, Scheme, element>,
                       x, static_cast<int>(row_blocks), detail::output_of(q));
    }
}

/// q = rms_norm(x, weight, epsilon), a scale a row.
template <int Sm, class Scheme>
void rms_norm_quantize(cuda<Sm> const& exec, matrix_argument auto const& x, vector_argument auto const& weight, float epsilon, device_quantized<Scheme>& q) {
    detail::run_rms_norm_quantize("rms_norm_quantize", exec, detail::input<cuda<Sm>>(x), detail::input<cuda<Sm>>(weight), epsilon, 1, q);
}
/// The same with a Hadamard rotation of the norm in groups of `order`, over the root of it.
template <int Sm, class Scheme>
void rms_norm_rotate_quantize(cuda<Sm> const& exec, matrix_argument auto const& x, vector_argument auto const& weight, float epsilon, index_t order,
                              device_quantized<Scheme>& q) {
    detail::run_rms_norm_quantize("rms_norm_rotate_quantize", exec, detail::input<cuda<Sm>>(x), detail::input<cuda<Sm>>(weight), epsilon, order, q);
}

/// y = x Hᵀ in groups (0: whole rows), without signs, not normalised; y may be x.
template <int Sm>
void walsh_hadamard(cuda<Sm> const& exec, matrix_argument auto const& x, matrix_argument auto&& y, index_t group = 0) {
    auto const from = detail::input<cuda<Sm>>(x);
    auto const to = detail::output<cuda<Sm>>(y);
    using X = typename decltype(from)::value_type;
    using Y = typename decltype(to)::value_type;
    char const* const name = "walsh_hadamard";
    detail::check_same_shape(name, from, "rows of y", "columns of y", to);
    detail::check_rows(name, "x", from);
    detail::check_output_rows(name, "y", to);
    detail::check_same_or_apart(name, "x", from, "y", to);
    index_t const order = group == 0 ? maximum(from.extent(1), 1) : group;
    detail::check_power(name, order, from.extent(1));
    if (to.empty()) return;
    detail::check_rows_there<Sm>(name, "x\0y", from, to);
    int bits = 0;
    while (index_t{1} << bits < order) ++bits;
    // Whole groups a block: as many threads as own the bits of the index in turn (kernels/cuda/hadamard.cuh).
    index_t const span = bits > 12 ? 16384 : bits > 8 ? 4096 : minimum(4096, round_up(from.extent(1), 512));
    dim3 const grid(static_cast<unsigned>(from.extent(0)), static_cast<unsigned>(ceil_div(from.extent(1), span)));
    bool const is_wide = detail::moves_packs(from) && detail::moves_packs(to);
    if (index_t const count = from.size() / 4096; is_wide && bits == 12 && count < 0x80000000) {
        detail::launch(name, detail::stream_of(exec), {dim3(static_cast<unsigned>(minimum(count, detail::resident_blocks(name, 4)))), dim3(128)},
                       &detail::hadamard_4096_kernel<X, Y>, from, static_cast<unsigned>(from.extent(1) / 4096), static_cast<unsigned>(count), to);
        return;
    }
    detail::launch(name, detail::stream_of(exec), {grid, dim3(static_cast<unsigned>(ceil_div(span, 16))), bits > 4 ? span / 16 * 17 * 4 : 0},
                   is_wide ? &detail::hadamard_kernel<true, X, Y> : &detail::hadamard_kernel<false, X, Y>, from, bits, to);
}

} // namespace tessera::inline TESSERA_ABI
