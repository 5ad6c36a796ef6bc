// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A language model whose linear layers are converted, against itself as it is stored: teacher-forced over a text, the
/// divergence of the next-token distribution; then tokens a second, one by one.

#include "../generate/llama.hpp"
#include "scheme.hpp"
#include "stored.hpp"

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace compress {

using generate::token_id;

/// As the files that are named after it write it: "Q4_K".
std::string type_name(ts::gguf::tensor_type type);

struct quality {
    double divergence = 0; ///< mean over the text, nats
    double largest = 0;
    double agreement = 0; ///< share of positions with the same most probable token
};

/// One row of the table.
struct result {
    std::string name;
    family kind = family::integer;
    form x = form::float32;
    weight_error error;
    std::optional<quality> text;
    double tokens_per_second = 0; ///< 0: not measured
    index_t placed_bytes = 0;     ///< of the linear layers, as this machine reads them
};

class judge {
public:
    /// The file's bytes must outlive it. @param decode_runs, @param decode_tokens of the measurement of speed
    judge(backend const& exec, ts::gguf::file const& file, std::vector<token_id> const& text, int decode_runs,
          index_t decode_tokens);

    /// Called with the share of a row that is done.
    using report = std::function<void(double)>;

    /// The file's own weights; with float32 x they are the truth of all others, and must come first.
    result stored(form x, report const& done);
    /// @throws tessera::unsupported_error where rows are no multiple of what the scheme needs; see `fits`
    result converted(scheme const& s, report const& done);
    bool fits(scheme const& s) const;

    index_t weights() const noexcept { return stored_error_.count; }
    std::string const& types() const noexcept { return types_; }           ///< of the linear layers
    ts::gguf::tensor_entry const& head() const noexcept { return *head_; } ///< the output matrix
    bool is_tied() const noexcept { return head_->name == "token_embd.weight"; }

private:
    class any_projection;
    struct parts;
    using maker = std::function<any_projection(tensors, ts::memory_arena&)>;
    result run(maker const& make, form x, report const& done);
    quality compare(std::vector<float> const& logits) const;
    std::vector<std::unique_ptr<encoded>> encode_some(scheme const& s, std::size_t first) const;

    backend exec_;
    ts::gguf::file const& file_;
    std::vector<token_id> text_;
    int decode_runs_;
    index_t decode_tokens_;
    std::vector<std::vector<ts::gguf::tensor_entry const*>> layers_; // the projections, in the order of their use
    ts::gguf::tensor_entry const* head_ = nullptr;
    weight_error stored_error_;
    std::string types_;
    std::vector<float> truth_;        // (tokens, vocabulary)
    std::vector<double> truth_norms_; // log_sum_exp of each token
};

} // namespace compress
