// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Norms, softmax, activations and rotary positions on CUDA devices: the functions of nn/, with `cuda<Sm>` and device memory.
///
///     rms_norm(exec, x, weight, epsilon, y);   // device views and owners
///
/// Elements are computed in float32; the errors' bounds are those of the headers of nn/ with the device's functions in place of
/// the library's (expf and erfcf: at most 2 and 4 ulp).

#include "../kernels/cuda/rope.cuh"
#include "../kernels/cuda/rows.cuh"
#include "../storage/device_memory.cuh"
#include "activation_forward.hpp"
#include "norm_forward.hpp"
#include "rope_table.hpp"
#include "softmax_forward.hpp"

namespace tessera::inline TESSERA_ABI {

/// A `rope_table` on a device.
class device_rope_table {
public:
    /// Copies a table; waits for the copy.
    template <int Sm>
    device_rope_table(cuda<Sm> const& exec, rope_table const& table)
        : cosines_{table.positions(), table.pairs()}, sines_{table.positions(), table.pairs()} {
        copy(exec, table.cosines(), cosines_.view());
        copy(exec, table.sines(), sines_.view());
        detail::check_cuda("device_rope_table", "cudaStreamSynchronize", cudaStreamSynchronize(detail::stream_of(exec)));
    }
    index_t positions() const noexcept { return cosines_.extent(0); }
    index_t pairs() const noexcept { return cosines_.extent(1); }
    float const* cosines() const noexcept { return cosines_.data(); }
    float const* sines() const noexcept { return sines_.data(); }

private:
    device_matrix<float> cosines_;
    device_matrix<float> sines_;
};

/// Turns the heads of consecutive tokens, the first at `first_position`; see nn/rope.hpp.
template <execution_policy Exec, rope_style Style>
    requires detail::is_cuda<Exec>
void rope(Exec const& exec, Style style,
          array3_argument auto const& x, // (tokens, heads, head dimension)
          device_rope_table const& table, index_t first_position,
          array3_argument auto&& y) {    // (tokens, heads, head dimension)
    auto const from = detail::input<Exec>(x);
    auto const to = detail::output<Exec>(y);
    for (std::size_t r = 0; r < 3; ++r) check::equal("rope", "extent of y", to.extent(r), from.extent(r), "extent of x");
    check::within("rope", "dims of the table", 2 * table.pairs(), 0, from.extent(2));
    detail::check_rows("rope", "x", from);
    detail::check_rows("rope", "y", to);
    if (!is_same_array(from, to)) check::no_overlap("rope", "x", footprint_of(from), "y", footprint_of(to));
    check::within("rope", "first position", first_position, 0, table.positions());
    check::within("rope", "last position plus one", first_position + from.extent(0), 0, table.positions());
    if (to.empty()) return;
    detail::check_owned_memory("rope", "the table", table.cosines(), table.positions() * table.pairs());
    kernel<op::rope, Exec, typename decltype(from)::value_type>::run(
        exec, style, from, {table.cosines(), table.sines(), table.pairs(), nullptr, first_position}, to);
}

} // namespace tessera::inline TESSERA_ABI
