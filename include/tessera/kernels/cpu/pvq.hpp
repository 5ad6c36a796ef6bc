// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Vector codes on the CPU: they are placed as small integers with a scale a group, in panels like any coded storage, and
/// multiplied by the same kernels. Exact: an integer of at most `Largest` is a code of 2 to 8 bits.
///
/// Indices are read a coordinate after the other, by branches that nobody predicts: about 30 cycles a weight (the map's decision
/// on vector codes has the figures). So what is not placed is bound by that, and is for saving memory.

#include "../pvq_operand.hpp"
#include "decode.hpp"
#include "pack.hpp"

namespace tessera::inline TESSERA_ABI {

/// Panel `p` of vector codes: each group of columns is decoded once, then packed as codes with scales.
template <index_t R, class Format, class Gain>
void pack_panel(pvq_matrix<Format, Gain> const& w, prepacked<panel<R, 4>, pvq_matrix<Format, Gain>> const& packed, index_t p,
                std::byte* out) noexcept {
    using strip_type = pvq_strip<Format, Gain, R>;
    strip_type strip;
    strip.row_count = minimum(R, w.rows() - p * R);
    for (index_t g = 0; g < packed.groups(); ++g) {
        strip.column_count = packed.group_columns(g);
        for (index_t r = 0; r < strip.row_count; ++r) strip.scales[r] = w.group(p * R + r, g, strip.integers[r]);
        detail::pack_group(strip, packed, 0, 0, g, out);
    }
}

/// Tiles of canonical vector codes.
template <class Arch, class Parallel, class Format, class Gain>
struct kernel<op::decode, cpu<Arch, Parallel>, pvq_matrix<Format, Gain>> {
    static constexpr bool is_placed = false;
    static constexpr index_t R = simd::lanes<Arch>;

    static index_t scratch_bytes(pvq_matrix<Format, Gain> const&) noexcept { return 0; }
    static void tile(pvq_matrix<Format, Gain> const& w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride,
                     std::byte*) noexcept {
        w.decode(n0, n1, k0, k1, out, stride);
    }
};

} // namespace tessera::inline TESSERA_ABI
