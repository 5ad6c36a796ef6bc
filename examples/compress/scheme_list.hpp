// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The schemes of the table. **Add yours here: a line.** Each list is compiled in a source file of its own; a row costs about a
/// second for each form of x, one that is `erased`, and multiplied by the operator for all codes, a third of that.

#include "coded_encodings.hpp"
#include "scheme.hpp"
#include "vector_encodings.hpp"

#include <tessera/numerics/bipolar.hpp>
#include <tessera/numerics/fixed_point.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

namespace compress {

template <class Format, ts::index_t Group>
using symmetric = rounded<ts::scheme<Format, ts::group<Group>, ts::fp16>>;
template <class Format, ts::index_t Group>
using with_zero_points = rounded<ts::scheme<Format, ts::group<Group>, ts::fp16, ts::affine>>;
template <class Format>
using one_scale_a_row = rounded<ts::scheme<Format, ts::per_channel, ts::fp32>>;

using per_32 = ts::int8_per_group<32>;

using integers = schemes<family::integer,
    row<"int8 per channel", one_scale_a_row<ts::int8>, ts::as_is, ts::int8_per_token, per_32>,
    quick_row<"int8 g32", symmetric<ts::int8, 32>, per_32>,
    row<"int6 g32", symmetric<ts::int6, 32>, per_32>,
    row<"int5 g32", symmetric<ts::int5, 32>, per_32>,
    row<"int4 g32", symmetric<ts::int4, 32>, ts::as_is>,
    quick_row<"int4 g32", symmetric<ts::int4, 32>, per_32>,
    row<"int4 g64", symmetric<ts::int4, 64>, per_32>,
    row<"int4 g128", symmetric<ts::int4, 128>, ts::as_is, per_32>,
    row<"int4 g128, least error", rounded<ts::int4_g128, ts::least_error_range>, per_32>,
    quick_row<"uint4 g32 affine", with_zero_points<ts::uint4, 32>, per_32>,
    row<"uint4 g128 affine", with_zero_points<ts::uint4, 128>, ts::as_is, per_32>,
    quick_row<"int3 g32", symmetric<ts::int3, 32>, per_32>,
    row<"uint3 g32 affine", with_zero_points<ts::uint3, 32>, per_32>,
    row<"uint2 g32 affine", with_zero_points<ts::uint2, 32>, per_32>,
    row<"ternary g128, least error", rounded<ts::ternary_g128, ts::least_error_range>, per_32>,
    row<"MXINT8", rounded<ts::mx_int8>, per_32>,
    row<"8 bits, two ones, g32", symmetric<ts::k_hot_point<8, 6, 2>, 32>, per_32>>;

using gguf_blocks = schemes<family::gguf,
    row<"Q8_0", blocks<ts::q8_0>, per_32>,
    row<"Q5_1", blocks<ts::q5_1>, per_32>,
    row<"Q5_0", blocks<ts::q5_0>, per_32>,
    row<"Q4_1", blocks<ts::q4_1>, per_32>,
    quick_row<"Q4_0", blocks<ts::q4_0>, per_32>,
    row<"Q6_K", blocks<ts::q6_k>, per_32>,
    row<"Q5_K", blocks<ts::q5_k>, per_32>,
    row<"Q4_K", blocks<ts::q4_k>, per_32>,
    row<"Q3_K", blocks<ts::q3_k>, per_32>,
    row<"Q2_K", blocks<ts::q2_k>, per_32>,
    row<"IQ4_NL", blocks<ts::iq4_nl>, per_32>,
    row<"IQ4_XS", blocks<ts::iq4_xs>, per_32>,
    row<"IQ3_S", blocks<ts::iq3_s>, per_32>,
    row<"IQ2_S", blocks<ts::iq2_s>, per_32>>;

using small_floats = schemes<family::floating,
    row<"fp16", narrowed<ts::fp16>, ts::as_is>,
    row<"bf16", narrowed<ts::bf16>, ts::as_is>,
    row<"e4m3 per channel", one_scale_a_row<ts::e4m3fn>, ts::as_is>,
    row<"e5m2 per channel", one_scale_a_row<ts::e5m2>, ts::as_is>,
    row<"MXFP8 e4m3", rounded<ts::mx_e4m3>, ts::as_is>,
    row<"MXFP8 e5m2", rounded<ts::mx_e5m2>, ts::as_is>,
    row<"MXFP6 e2m3", rounded<ts::mx_e2m3>, ts::as_is>,
    row<"MXFP6 e3m2", rounded<ts::mx_e3m2>, ts::as_is>,
    row<"MXFP4 e2m1", rounded<ts::mx_e2m1>, ts::as_is>,
    row<"NVFP4", rounded<ts::nv_e2m1>, ts::as_is>,
    row<"e2m1 g32", symmetric<ts::e2m1, 32>, ts::as_is>,
    quick_row<"nf4 g64", rounded<ts::nf4_g64>, ts::as_is>>;

// Drawn as codebooks, which they are.
using vector_codes = schemes<family::floating,
    row<"HIGGS, 2 x 4 bits", grid_points<2, 8>, ts::as_is>,
    row<"HIGGS, 2 x 3 bits", grid_points<2, 6>, ts::as_is>,
    row<"HIGGS, 2 x 2 bits", grid_points<2, 4>, ts::as_is>,
    row<"PVQ 32, 96 bits", pyramid<ts::pvq<32, ts::pvq_pulses(32, 96), 7>, 4>, per_32>,
    row<"PVQ 32, 64 bits", pyramid<ts::pvq<32, ts::pvq_pulses(32, 64), 3>, 4>, per_32>>;

using tables = schemes<family::floating,
    row<"4-bit table, scales g64", looked_up<fitted_tables<4, ts::per_tensor, ts::scaled_by<ts::fp16, ts::group<64>>>>, ts::as_is>,
    row<"4-bit table a row", looked_up<fitted_tables<4, ts::per_channel>>, ts::as_is>,
    row<"3-bit table a row", looked_up<fitted_tables<3, ts::per_channel>>, ts::as_is>,
    row<"2-bit table g64", looked_up<fitted_tables<2, ts::group<64>>>, ts::as_is>,
    row<"4 of 8 nested bits", looked_up<nested_codes<4>>, ts::as_is>,
    row<"3 of 8 nested bits", looked_up<nested_codes<3>>, ts::as_is>,
    row<"4-bit powers a row", looked_up<powers<4>>, ts::as_is>,
    row<"VPTQ, 4 x 2 bits", looked_up<column_vectors<4>>, ts::as_is>>;

// Two families in one source file, with one operator.
using other_integers = schemes<family::integer,
    row<"bipolar 3 g128, least error", erased<rounded<ts::scheme<ts::bipolar<3>, ts::group<128>, ts::fp16>, ts::least_error_range>>, ts::as_is>,
    row<"bipolar 2 g128, least error", erased<rounded<ts::scheme<ts::bipolar<2>, ts::group<128>, ts::fp16>, ts::least_error_range>>, ts::as_is>,
    row<"ternary g128, five in a byte", erased<five_in_a_byte<ts::least_error_range>>, ts::as_is>>;
using other_blocks = schemes<family::gguf,
    row<"MXFP4 of GGUF", erased<blocks<ts::gguf_mxfp4>>, ts::as_is>,
    row<"NVFP4 of GGUF", erased<blocks<ts::gguf_nvfp4>>, ts::as_is>,
    row<"IQ3_XXS", erased<blocks<ts::iq3_xxs>>, ts::as_is>,
    row<"IQ2_XS", erased<blocks<ts::iq2_xs>>, ts::as_is>,
    row<"IQ2_XXS", erased<blocks<ts::iq2_xxs>>, ts::as_is>,
    row<"IQ1_M", erased<blocks<ts::iq1_m>>, ts::as_is>,
    row<"IQ1_S", erased<blocks<ts::iq1_s>>, ts::as_is>,
    row<"Q2_0", erased<blocks<ts::q2_0>>, ts::as_is>,
    row<"TQ2_0", erased<blocks<ts::tq2_0>>, ts::as_is>,
    row<"TQ1_0", erased<blocks<ts::tq1_0>>, ts::as_is>,
    row<"Q1_0", erased<blocks<ts::q1_0>>, ts::as_is>>;

using compositions = schemes<family::composed,
    row<"half of the weights, fp16", pruned<ts::csr<ts::fp16>, 500>, ts::as_is>,
    row<"half of the weights, int8 per channel", pruned<ts::csr<ts::int8>, 500>, ts::as_is>,
    row<"2 of 4, fp16", pruned<ts::n_of_m<2, 4, ts::fp16>>, ts::as_is>,
    row<"2 of 4, int8 per channel", pruned<ts::n_of_m<2, 4, ts::int8>>, ts::as_is>,
    row<"4 of 8, fp16", pruned<ts::n_of_m<4, 8, ts::fp16>>, ts::as_is>,
    row<"int4 g128 + 0.5% outliers", with_outliers<symmetric<ts::int4, 128>, 5>, per_32>,
    quick_row<"int3 g32 + 0.5% outliers", with_outliers<symmetric<ts::int3, 32>, 5>, per_32>,
    row<"uint2 g32 affine + 2% outliers", with_outliers<with_zero_points<ts::uint2, 32>, 20>, per_32>,
    row<"int3 g32 + rank 16", with_low_rank<symmetric<ts::int3, 32>, 16>, per_32>>;

void add_integers(std::vector<scheme>& out);
void add_gguf_blocks(std::vector<scheme>& out);
void add_small_floats(std::vector<scheme>& out);
void add_vector_codes(std::vector<scheme>& out);
void add_tables(std::vector<scheme>& out);
void add_other_codes(std::vector<scheme>& out);
void add_compositions(std::vector<scheme>& out);

} // namespace compress
