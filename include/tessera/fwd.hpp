// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The public types, declared: for headers that name them in the signatures of functions and do not call the library.
///
///     void forward(tessera::cpu<> const& exec, tessera::matrix<float> const& x, tessera::matrix<float>& y);
///     using weights = tessera::quantized_tensor<tessera::int4_g32>;
///
/// Complete are what such names are made of and costs little: policies, views, schemes, preparations. Operators made by
/// expressions (`a + b`, `transposed(a)`) have no names to declare: functions of them are templates over `linear_operator`.
/// Default template arguments of types declared here come with their definitions.

#include "core/exec.hpp"
#include "core/view.hpp"
#include "storage/scheme.hpp"

#include <cstddef>

namespace tessera::inline TESSERA_ABI {

// core
struct shape_error;
struct unsupported_error;
struct format_error;
struct cuda_error;
class philox;
class thread_pool;
class threads;

// storage
template <class T>
class buffer;
class memory_arena;
class mapped_file;
template <class T, std::size_t Rank>
class tensor;
/// Tensors of two dimensions, and of one.
template <class T>
using matrix = tensor<T, 2>;
template <class T>
using vector = tensor<T, 1>;
template <class Scheme>
class quantized;
template <class Scheme>
class quantized_tensor;
template <class Scheme>
class base3;
template <class Scheme>
class base3_tensor;
template <int Bits>
class bit_planes;
template <int Bits>
class bit_plane_tensor;
template <class T, class Granularity>
class csr;
template <class T, class Granularity>
class csr_tensor;
template <index_t N, index_t M, class T, class Granularity>
class n_of_m;
template <index_t N, index_t M, class T, class Granularity>
class n_of_m_tensor;
template <class Format, class Gain>
class pvq_matrix;
template <class Format, class Gain>
class pvq_tensor;
template <int Bits, granularity Granularity, class Value, class Scale>
class table_quantized;
template <int Bits, granularity Granularity, class Value, class Scale>
class table_quantized_tensor;
template <int Bits>
class any_precision;
class any_precision_tensor;
template <index_t Dims, int Bits>
class vector_grid;
template <index_t Dims, int Bits>
class vector_grid_tensor;
class vector_codebooks;
class vector_codebooks_tensor;
template <index_t R, index_t D>
struct panel;
template <class Layout, class Storage>
class prepacked;
template <class Layout, class Storage>
class prepacked_tensor;
template <class Format>
struct key;
template <class Format>
struct value;
struct contiguous;
struct ring;
template <class Key, class Value>
struct kv_view;
template <class Key, class Value, class Layout>
class kv_cache;
template <class Key, class Value>
class kv_page_pool;
template <class Pool>
class paged_sequence;
template <class... Format>
struct kv_formats;
struct kv_choice;
template <class Formats>
class basic_any_kv_cache;
template <class Formats>
class basic_any_kv_page_pool;
template <class Format>
struct kv_pvq;

// memory of a device (tessera.cuh)
template <class T>
class device_buffer;
template <class T, std::size_t Rank>
class device_tensor;
/// Tensors of two dimensions, and of one, in the memory of a device.
template <class T>
using device_matrix = device_tensor<T, 2>;
/// See device_matrix.
template <class T>
using device_vector = device_tensor<T, 1>;
class device_workspace;
class device_arena;
template <class Key, class Value, class Layout>
class device_kv_cache;
class device_rope_table;

// operators
template <class Storage, preparation Preparation>
class linear;
template <class Exec, class Op>
class placed;
template <class Forms>
struct prepared_rows;
struct no_epilogue;
struct bias;
struct residual;
struct relu;

// families
class hadamard;
template <index_t Dims, int Bits>
class higgs_tensor;
template <class Weight, class Gate>
class top_k_router;
class expert_plan;
struct routing_report;
class heavy_hitters;
class sink_window;
class block_top_k;
struct gear_options;
template <int Bits, class T>
class gear_kv_cache;
template <class Cache>
class hadamard_kv_cache;
class rope_table;
class sampler;
struct sampling_options;

} // namespace tessera::inline TESSERA_ABI
