// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of few bits by bit planes (arXiv:2409.17870): any width of 1 to 8 bits for weights and for x.
///
///     auto const q = quantize<scheme<bipolar<2>, per_channel>>(w);             // -3, -1, 1, 3
///     auto const planes = pack_bit_planes(q);
///     apply(exec, linear{planes, bipolar_per_token<4>{}}, x, y);               // x in 4 bits a number, one scale a token
///
/// Integers with one scale a row (int4, uint4 with zero points, ternary) are bit planes too, but for one rounding a row. The
/// operator goes anywhere in the algebra; `transposed` decodes. Work grows with the product of the two widths, bytes with that of
/// the weights, so bit planes pay with few rows of x and few bits. Speed over the int8 product, 4096 x 4096 from DRAM, one
/// thread, AVX512-VPOPCNTDQ (benchmarks/bit_plane_bench.cpp), for x by weights of 1 x 1, 4 x 1, 2 x 2, 8 x 2, 4 x 4 bits: with
/// one row 7.7, 6.5, 2.1, 2.7, 1.2 (8 x 8: 0.6); with 64 rows 1.3, 0.50, 0.48, 0.16, 0.18.

#include "../kernels/cpu/bit_planes.hpp"
#include "../kernels/ref/bit_planes.hpp"
#include "../operators/apply.hpp"
#include "../operators/place.hpp"

#include <cstring>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <int Bits, class Exec>
struct forms_of_preparation<bipolar_per_token<Bits>, Exec> {
    using type = type_list<bit_plane_rows<Bits>>;
};

} // namespace detail

/// Bit planes where they are wanted: a copy, for they are in the kernels' order.
template <class Arch, class Parallel, int Bits, int XBits>
class placed<cpu<Arch, Parallel>, linear<bit_planes<Bits>, bipolar_per_token<XBits>>> {
    using storage = bit_planes<Bits>;

public:
    using operator_type = linear<storage, bipolar_per_token<XBits>>;

    placed(cpu<Arch, Parallel> const&, operator_type const& w, memory_arena* arena = nullptr) {
        storage const from = w.storage();
        index_t size = 0;
        from.for_each_array([&](void const*, index_t bytes) { size += round_up(bytes, config::cache_line); });
        if (arena == nullptr) own_ = buffer<std::byte>{size};
        std::byte* at = arena != nullptr ? arena->allocate(size) : own_.data();
        std::byte* arrays[3] = {};
        int count = 0;
        from.for_each_array([&](void const* data, index_t bytes) {
            if (bytes > 0) std::memcpy(at, data, static_cast<std::size_t>(bytes));
            arrays[count++] = at;
            at += round_up(bytes, config::cache_line);
        });
        view_ = storage{reinterpret_cast<std::uint64_t const*>(arrays[0]), reinterpret_cast<float const*>(arrays[1]),
                        reinterpret_cast<float const*>(arrays[2]), from.rows(), from.cols()};
    }

    operator_type view() const& { return operator_type{view_.get()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return view_.get().bytes(); }

private:
    buffer<std::byte> own_;
    detail::emptied_by_move<storage> view_;
};

} // namespace tessera::inline TESSERA_ABI
