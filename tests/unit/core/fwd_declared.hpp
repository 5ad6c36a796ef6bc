// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Functions over the public types, declared with fwd.hpp alone; fwd_test.cpp defines them with everything.

#include <tessera/fwd.hpp>

namespace fwd_declared {

namespace ts = tessera;

using weights = ts::quantized_tensor<ts::int4_g32>;
using leaf = ts::linear<ts::quantized<ts::int4_g32>, ts::int8_per_group<32>>;
using cache = ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::fp16>, ts::contiguous>;

void product(ts::cpu<> const& exec, leaf const& w, ts::matrix<float> const& x, ts::matrix<float>& y);
void product(ts::reference const& exec, ts::matrix_view<float const> w, ts::matrix_view<float const> x,
             ts::matrix_view<float> y, ts::bias const& b);
ts::placed<ts::cpu<>, leaf> place(ts::cpu<> const& exec, weights const& w);
ts::index_t tokens(cache const& kv, ts::kv_view<std::int8_t, ts::fp16> const& view);
ts::vector<float>& first(ts::vector<float>& v, ts::tensor<ts::bf16, 3> const&);
ts::cpu<ts::native_arch, ts::serial> on(ts::thread_pool& pool, ts::threads const& backend, ts::workspace& scratch);
ts::index_t bytes(ts::buffer<float> const& b, ts::memory_arena const*, ts::mapped_file const*);
ts::index_t rows(ts::prepacked<ts::panel<16, 4>, ts::quantized<ts::int4_g32>> const& w);
bool is_shape_error(ts::shape_error const* shape, ts::format_error const* format);
void rest(ts::philox const&, ts::no_epilogue const&, ts::residual const&, ts::relu const&, ts::rope_table const&,
          ts::sampler const&, ts::sampling_options const&, ts::unsupported_error const&, ts::cuda_error const&,
          ts::cuda<90> const&, ts::ring const&);

/// In fwd_declared.cpp, which sees fwd.hpp alone: calls `product` through the declarations.
void product_by_declaration(ts::cpu<> const& exec, leaf const& w, ts::matrix<float> const& x, ts::matrix<float>& y);
ts::index_t tokens_by_declaration(cache const& kv, ts::kv_view<std::int8_t, ts::fp16> const& view);

} // namespace fwd_declared
