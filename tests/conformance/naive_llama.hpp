// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A second judge of the language-model example: the Llama forward pass as plain loops in double over decoded weights,
/// written from the formulas, sharing nothing with the library but the reader of the file.

#include <tessera/interop/gguf.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace conformance {

using row = std::vector<double>;

/// A tensor as doubles, row after row.
inline row decoded(tessera::gguf::tensor_entry const& t) {
    row out;
    auto const all = [&](auto const& w) {
        for (tessera::index_t n = 0; n < t.rows(); ++n)
            for (tessera::index_t k = 0; k < t.cols(); ++k) out.push_back(static_cast<double>(static_cast<float>(w(n, k))));
    };
    tessera::gguf::with_storage(t, all, tessera::gguf::block_formats{});
    return out;
}

class naive_llama {
public:
    /// @param window keys that a query sees, itself included
    explicit naive_llama(tessera::gguf::file const& file, std::size_t window = std::numeric_limits<std::size_t>::max())
        : file_{file}, window_{window} {}

    /// The logits after every token.
    std::vector<row> operator()(std::vector<std::int32_t> const& tokens) const {
        std::size_t const width = size("llama.embedding_length");
        row const table = weights("token_embd.weight");
        std::vector<row> x;
        for (std::int32_t const t : tokens) {
            auto const first = table.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(t) * width);
            x.emplace_back(first, first + static_cast<std::ptrdiff_t>(width));
        }
        for (std::size_t i = 0; i < size("llama.block_count"); ++i) {
            std::string const at = "blk." + std::to_string(i) + ".";
            attention(at, x);
            feed_forward(at, x);
        }
        row const norm = weights("output_norm.weight");
        row const head = file_.find_tensor("output.weight") != nullptr ? weights("output.weight") : table;
        for (row& r : x) r = product(head, normed(r, norm));
        return x;
    }

private:
    std::size_t size(char const* key) const { return file_.get<std::uint32_t>(key); }
    row weights(std::string const& name) const { return decoded(file_.tensor(name)); }

    row normed(row const& x, row const& weight) const {
        double squares = 0;
        for (double const v : x) squares += v * v;
        double const epsilon = static_cast<double>(file_.get<float>("llama.attention.layer_norm_rms_epsilon"));
        double const inverse = 1 / std::sqrt(squares / static_cast<double>(x.size()) + epsilon);
        row y;
        for (std::size_t i = 0; i < x.size(); ++i) y.push_back(weight[i] * x[i] * inverse);
        return y;
    }

    /// W x
    static row product(row const& w, row const& x) {
        row y(w.size() / x.size());
        for (std::size_t n = 0; n < y.size(); ++n)
            for (std::size_t k = 0; k < x.size(); ++k) y[n] += w[n * x.size() + k] * x[k];
        return y;
    }

    /// Turns neighbouring elements of each head.
    void turn(row& x, std::size_t head_dim, std::size_t position) const {
        double const base = static_cast<double>(file_.get<float>("llama.rope.freq_base"));
        for (std::size_t h = 0; h < x.size(); h += head_dim)
            for (std::size_t i = 0; i < head_dim; i += 2) {
                double const angle =
                    static_cast<double>(position) * std::pow(base, -static_cast<double>(i) / static_cast<double>(head_dim));
                double const a = x[h + i];
                double const b = x[h + i + 1];
                x[h + i] = a * std::cos(angle) - b * std::sin(angle);
                x[h + i + 1] = a * std::sin(angle) + b * std::cos(angle);
            }
    }

    void attention(std::string const& at, std::vector<row>& x) const {
        std::size_t const heads = size("llama.attention.head_count");
        std::size_t const shared = heads / size("llama.attention.head_count_kv");
        std::size_t const d = size("llama.embedding_length") / heads;
        row const norm = weights(at + "attn_norm.weight");
        row const wq = weights(at + "attn_q.weight");
        row const wk = weights(at + "attn_k.weight");
        row const wv = weights(at + "attn_v.weight");
        row const wo = weights(at + "attn_output.weight");
        std::vector<row> keys;
        std::vector<row> values;
        for (std::size_t t = 0; t < x.size(); ++t) {
            row const n = normed(x[t], norm);
            row q = product(wq, n);
            turn(q, d, t);
            turn(keys.emplace_back(product(wk, n)), d, t);
            values.push_back(product(wv, n));
            row out(heads * d);
            for (std::size_t h = 0; h < heads; ++h) head(&q[h * d], h / shared * d, d, keys, values, &out[h * d]);
            row const y = product(wo, out);
            for (std::size_t i = 0; i < y.size(); ++i) x[t][i] += y[i];
        }
    }

    void head(double const* q, std::size_t kv, std::size_t d, std::vector<row> const& keys, std::vector<row> const& values,
              double* out) const {
        std::size_t const first = keys.size() > window_ ? keys.size() - window_ : 0;
        row p;
        double largest = -std::numeric_limits<double>::infinity();
        for (std::size_t j = first; j < keys.size(); ++j) {
            double s = 0;
            for (std::size_t i = 0; i < d; ++i) s += q[i] * keys[j][kv + i];
            p.push_back(s / std::sqrt(static_cast<double>(d)));
            largest = std::max(largest, p.back());
        }
        double sum = 0;
        for (double& v : p) sum += v = std::exp(v - largest);
        for (std::size_t j = first; j < keys.size(); ++j)
            for (std::size_t i = 0; i < d; ++i) out[i] += p[j - first] / sum * values[j][kv + i];
    }

    void feed_forward(std::string const& at, std::vector<row>& x) const {
        row const norm = weights(at + "ffn_norm.weight");
        row const wg = weights(at + "ffn_gate.weight");
        row const wu = weights(at + "ffn_up.weight");
        row const wd = weights(at + "ffn_down.weight");
        for (row& r : x) {
            row const n = normed(r, norm);
            row hidden = product(wg, n);
            row const up = product(wu, n);
            for (std::size_t i = 0; i < up.size(); ++i) hidden[i] *= up[i] / (1 + std::exp(-hidden[i]));
            row const y = product(wd, hidden);
            for (std::size_t i = 0; i < y.size(); ++i) r[i] += y[i];
        }
    }

    tessera::gguf::file const& file_;
    std::size_t window_;
};

} // namespace conformance
