// SPDX-License-Identifier: MIT
/// @file
/// Every mask and bias of attention on a device, in float32; whose memory they read.

#include "attention_masks.cuh"

using namespace attention_tests;

TEST_CASE("attention: every mask and bias in float32") { check_all<float>({}); }

TEST_CASE("attention: what a mask reads is memory of the device") {
    auto const dq = there(random_tensor<ts::bf16>(4, 2, 64, 1));
    ts::device_tensor<ts::bf16, 3> out{4, 2, 64};
    std::int32_t const offsets[] = {0, 4};
    float const numbers[] = {1, 2};
    std::uint8_t const bytes[16] = {};
    auto const refuses = [&](char const* name, auto const& score) {
        std::string const sentence = std::string{"tessera: attention: "} + name + " is memory of the host, expected memory of CUDA device 0";
        CHECK_THROWS_WITH_AS(ts::attention(device{}, dq, dq, dq, out, score), sentence.c_str(), ts::shape_error);
    };
    ts::segments const packed{ts::vector_view<std::int32_t const>{offsets, 2}};
    refuses("offsets of segments", packed);
    refuses("offsets of segments", ts::either(ts::causal, packed));
    refuses("parents of token_tree", ts::causal | ts::token_tree{ts::vector_view<std::int32_t const>{offsets, 1}, 3});
    refuses("dense_mask", ts::dense_mask{ts::tensor_view<std::uint8_t const, 3>{bytes, 1, 4, 4}});
    refuses("block_mask", ts::block_mask{ts::tensor_view<std::uint8_t const, 3>{bytes, 1, 1, 1}, 8, 8});
    refuses("dense_bias", ts::dense_bias{ts::tensor_view<float const, 3>{numbers, 2, 1, 1}});
    refuses("slopes of alibi", ts::alibi{ts::vector_view<float const>{numbers, 2}});
    refuses("logits of sinks", ts::causal | ts::sinks{ts::vector_view<float const>{numbers, 2}});
}
