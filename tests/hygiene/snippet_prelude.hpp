// SPDX-License-Identifier: MIT
// What the snippets in the documents use: check_snippets.py puts each behind this. Declared, never run.
#pragma once

#include <tessera/tessera.hpp>
#if __has_include(<Eigen/Core>)
#include <tessera/interop/eigen.hpp>
#endif

#include <string>
#include <vector>

namespace snippets {

namespace ts = tessera;

// W (n, k) in several forms, its terms, and what it is multiplied with.
extern ts::cpu<> exec;
extern ts::matrix<float> w, b, a, x, y, dx, dy;
extern ts::index_t n, k, m;
extern float rank;
extern ts::quantized_tensor<ts::int4_g32> q, qa, qb;
extern ts::linear<ts::quantized<ts::int4_g32>> base;
extern ts::csr_tensor<ts::fp16> outliers;
extern ts::low_rank<ts::linear<ts::matrix_view<float const>>, ts::linear<ts::matrix_view<float const>>> adapter;
extern ts::vector<float> magnitude;

// Files.
extern std::string path, text, folder;
extern ts::gguf::file file;

} // namespace snippets

namespace snippets::in_adapter {

extern ts::low_rank<ts::linear<ts::matrix_view<float const>>, ts::linear<ts::matrix_view<float const>>> one, two;
extern ts::vector<float> factors;

} // namespace snippets::in_adapter

namespace snippets::in_attention {

extern ts::tensor<float, 3> q, k, v, out; // (tokens, heads, head_dim)
extern ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::fp16>> kv;
extern ts::tensor<float, 3> d_out, d_q, d_k, d_v;
extern ts::matrix<float> log_sum_exp, mass;
extern std::vector<ts::kv_cache<ts::key<ts::fp16>, ts::value<ts::fp16>>> caches; // (requests)
extern ts::vector_view<std::int32_t const> offsets;                             // (requests + 1)
extern std::vector<ts::index_t> lengths;
extern ts::index_t kv_heads, key_dim, head_dim, capacity, prompt, first, last, first_position;
extern ts::rope_table const table;
extern ts::vector_view<float const> logits; // (heads)
extern ts::tensor_view<std::uint8_t, 3> seen; // (heads, 1, pages)
inline constexpr auto score = ts::causal;
extern float s;

} // namespace snippets::in_attention

namespace snippets::in_interop {

extern ts::matrix_view<float const> w;
extern ts::matrix_view<float> y;
extern std::uint64_t rank;
#if defined(EIGEN_WORLD_VERSION)
extern Eigen::MatrixXf x;
extern Eigen::Index n, k;
#endif
extern std::vector<float> scores;
extern ts::dlpack::managed_tensor_versioned* pointer;
extern ts::tensor<float, 2> tensor;
extern ts::mapped_file bytes;
extern std::span<std::byte const> b, zero_points;
extern ts::array_entry scales;

} // namespace snippets::in_interop

namespace snippets::in_moe {

using linear_expert = ts::linear<ts::quantized<ts::int4_g32>>;
extern linear_expert gate, up, down;
extern ts::gated_expert<linear_expert> expert;
extern std::vector<linear_expert> const operators;
extern ts::index_t experts;
extern ts::matrix<std::int32_t> index;  // (tokens, k)
extern ts::matrix<float> weight;        // (tokens, k)
extern ts::matrix_view<float> gathered, y, out;

} // namespace snippets::in_moe

namespace snippets::in_nn {

extern ts::vector<float> norm_weight;

} // namespace snippets::in_nn

namespace snippets::in_operators {

extern ts::linear<ts::quantized<ts::int4_g32>> wq, wk;
extern ts::matrix<float> yq, yk;

} // namespace snippets::in_operators

namespace snippets::in_sparse {

extern ts::quantized_tensor<ts::int4_g32> base;

} // namespace snippets::in_sparse

namespace snippets::in_storage {

extern ts::linear<ts::quantized<ts::int4_g32>> w;
extern std::span<std::byte const> model;

} // namespace snippets::in_storage
