// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The transformer of llama.hpp wholly on a CUDA device; only tokens go there, only logits come back. cuda_model.cu is compiled by nvcc
/// and has all of CUDA; programs without it do not need this file.

#include <tessera/core/types.hpp>
#include <tessera/interop/gguf.hpp>

#include <cstdint>
#include <memory>
#include <span>

namespace generate {

struct cuda_options {
    tessera::index_t context = 0; ///< positions; 0: what the model was trained for
    tessera::index_t chunk = 256; ///< most tokens that run together
};

/// Weights as they are stored, products exact in float32, keys and values in fp16.
class cuda_model {
public:
    /// @throws what llama's constructor throws, tessera::cuda_error
    explicit cuda_model(tessera::gguf::file const& file, cuda_options const& options = {});
    ~cuda_model();
    cuda_model(cuda_model const&) = delete;
    cuda_model& operator=(cuda_model const&) = delete;

    /// Runs tokens behind those before; the logits of the last one.
    std::span<float const> operator()(std::span<std::int32_t const> tokens);
    void clear();
    tessera::index_t vocabulary() const noexcept;
    /// Of the device, for weights and for keys and values.
    tessera::index_t weight_bytes() const noexcept;
    tessera::index_t kv_bytes() const noexcept;

private:
    class state;
    std::unique_ptr<state> state_;
};

} // namespace generate
