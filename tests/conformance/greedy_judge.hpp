// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// tests/data/model/greedy.bin: what transformers does with the real model. Its README describes the layout.

#include <tessera/storage/mapped_file.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace conformance {

/// log softmax, in double.
inline std::vector<double> log_probabilities(std::span<float const> logits) {
    double const largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (float const v : logits) sum += std::exp(static_cast<double>(v) - largest);
    std::vector<double> out;
    out.reserve(logits.size());
    for (float const v : logits) out.push_back(static_cast<double>(v) - largest - std::log(sum));
    return out;
}

/// KL(p || q) of two rows of logits.
inline double divergence(std::span<float const> p, std::span<float const> q) {
    auto const log_p = log_probabilities(p);
    auto const log_q = log_probabilities(q);
    double sum = 0;
    for (std::size_t i = 0; i < log_p.size(); ++i) sum += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
    return sum;
}

class greedy_judge {
public:
    struct prompt {
        std::string message;
        std::string rendered;
        std::vector<std::int32_t> tokens;
        std::vector<std::int32_t> continuation;
    };

    explicit greedy_judge(std::string const& path) : file_{path} {
        if (text(8) != "TSRGRDY1") throw std::runtime_error{path + ": unexpected magic"};
        std::vector<std::uint32_t> const head = take<std::uint32_t>(8);
        std::size_t const count = head[1];
        steps_ = head[2];
        kept_ = head[3];
        vocabulary_ = head[4];
        auto const token_counts = take<std::uint32_t>(count);
        auto const message_bytes = take<std::uint32_t>(count);
        auto const rendered_bytes = take<std::uint32_t>(count);
        prompts_.resize(count);
        for (std::size_t p = 0; p < count; ++p) prompts_[p].tokens = take<std::int32_t>(token_counts[p]);
        for (prompt& p : prompts_) p.continuation = take<std::int32_t>(steps_);
        take<float>(count * steps_); // gaps between the best two logits
        log_rest_ = take<float>(count * steps_);
        log_kept_ = take<float>(count * steps_ * kept_);
        ids_ = take<std::uint16_t>(count * steps_ * kept_);
        for (std::size_t p = 0; p < count; ++p) prompts_[p].message = text(message_bytes[p]);
        for (std::size_t p = 0; p < count; ++p) prompts_[p].rendered = text(rendered_bytes[p]);
    }

    std::vector<prompt> const& prompts() const noexcept { return prompts_; }
    std::size_t steps() const noexcept { return steps_; }
    std::size_t vocabulary() const noexcept { return vocabulary_; }

    /// KL(reference || logits) after a prompt and `step` tokens of its continuation, over the kept tokens and the rest.
    double divergence_at(std::size_t p, std::size_t step, std::span<float const> logits) const {
        auto const log_q = log_probabilities(logits);
        std::size_t const at = p * steps_ + step;
        double q_kept = 0;
        double sum = 0;
        for (std::size_t i = at * kept_; i < (at + 1) * kept_; ++i) {
            double const log_p = static_cast<double>(log_kept_[i]);
            q_kept += std::exp(log_q[ids_[i]]);
            sum += std::exp(log_p) * (log_p - log_q[ids_[i]]);
        }
        double const log_rest = static_cast<double>(log_rest_[at]);
        return sum + std::exp(log_rest) * (log_rest - std::log(std::max(1 - q_kept, 1e-300)));
    }

private:
    template <class T>
    std::vector<T> take(std::size_t n) {
        if (n * sizeof(T) > file_.bytes().size() - at_) throw std::runtime_error{"greedy.bin is too short"};
        std::vector<T> out(n);
        if (n != 0) std::memcpy(out.data(), file_.bytes().data() + at_, n * sizeof(T));
        at_ += n * sizeof(T);
        return out;
    }
    std::string text(std::size_t n) {
        auto const bytes = take<char>(n);
        return {bytes.begin(), bytes.end()};
    }

    tessera::mapped_file file_;
    std::size_t at_ = 0;
    std::size_t steps_ = 0;
    std::size_t kept_ = 0;
    std::size_t vocabulary_ = 0;
    std::vector<prompt> prompts_;
    std::vector<float> log_rest_;
    std::vector<float> log_kept_;
    std::vector<std::uint16_t> ids_;
};

} // namespace conformance
