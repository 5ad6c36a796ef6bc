// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rows of a table by their numbers, on CUDA devices: y[i] = table[ids[i]]. Numbers outside the table, which the host cannot see, give rows of
/// NaN.

#include "../core/cuda_call.cuh"
#include "../core/device_view.hpp"
#include "arguments.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class X, class Y>
__global__ void embedding_kernel(__grid_constant__ matrix_view<X const> const table, std::int32_t const* ids, __grid_constant__ matrix_view<Y> const y) {
    index_t const id = ids[blockIdx.x];
    bool const is_there = id >= 0 && id < table.extent(0);
    for (index_t k = threadIdx.x; k < y.extent(1); k += blockDim.x)
        y(blockIdx.x, k) = is_there ? static_cast<Y>(static_cast<float>(table(id, k))) : static_cast<Y>(NAN);
}

} // namespace detail

/// y = rows of the table.
template <int Sm>
void embedding(cuda<Sm> const& exec,
               matrix_argument auto const& table,                    // (rows, k)
               device_vector_view<std::int32_t> const& ids,          // (m), adjacent
               matrix_argument auto&& y) {                           // (m, k)
    auto const from = detail::input<cuda<Sm>>(table);
    auto const to = detail::output<cuda<Sm>>(y);
    check::equal("embedding", "rows of y", to.extent(0), ids.extent(0), "number of ids");
    check::equal("embedding", "columns of y", to.extent(1), from.extent(1), "columns of the table");
    detail::check_rows("embedding", "ids", ids);
    detail::check_output_rows("embedding", "y", to);
    check::no_overlap("embedding", "table", footprint_of(from), "y", footprint_of(to));
    if (to.empty()) return;
    detail::check_device<Sm>("embedding");
    detail::check_device_pointer("embedding", "table", from.data_handle(), from.size());
    detail::check_device_pointer("embedding", "ids", ids.data_handle(), ids.size());
    detail::check_device_pointer("embedding", "y", to.data_handle(), to.size());
    detail::launch("embedding", detail::stream_of(exec), {dim3(static_cast<unsigned>(to.extent(0))), 128},
                   &detail::embedding_kernel<typename decltype(from)::value_type, typename decltype(to)::value_type>, from, ids.data_handle(), to);
}

} // namespace tessera::inline TESSERA_ABI
