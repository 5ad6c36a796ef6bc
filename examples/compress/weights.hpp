// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The weights of any model in a safetensors file: every matrix whose name ends in "weight" and does not speak of an embedding.

#include "judge.hpp"

#include <tessera/interop/safetensors.hpp>

#include <functional>
#include <vector>

namespace compress {

class weight_file {
public:
    /// @throws tessera::format_error when there is no such matrix. The file's bytes must outlive it.
    weight_file(backend const& exec, ts::safetensors::file const& file);

    std::size_t matrices() const noexcept { return matrices_.size(); }
    /// Matrices of weights that are left out: embeddings.
    std::size_t others() const noexcept { return others_; }
    index_t weights() const noexcept { return weights_; }
    bool fits(scheme const& s) const;
    result converted(scheme const& s, std::function<void(double)> const& done) const;

private:
    backend exec_;
    std::vector<ts::safetensors::tensor_entry const*> matrices_;
    std::size_t others_ = 0;
    index_t weights_ = 0;
};

} // namespace compress
