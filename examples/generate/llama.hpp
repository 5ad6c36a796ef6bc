// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A decoder-only transformer of GGUF's `llama` architecture, in the words of the library. For every layer,
///
///     x += attention(rope(Wq n), rope(Wk n), Wv n) Woᵀ,   n = rms_norm(x)
///     x += (silu(Wg n) Wu n) Wdᵀ,                         n = rms_norm(x)
///
/// then logits = W rms_norm(x), where W is `output.weight` or, in its absence, the embedding table.

#include "backend.hpp"
#include "hyperparameters.hpp"
#include "kv_memory.hpp"
#include "projection.hpp"
#include "rope_scaling.hpp"

#include <tessera/core/slice.hpp>
#include <tessera/nn/activation.hpp>
#include <tessera/nn/norm.hpp>
#include <tessera/nn/rope.hpp>
#include <tessera/storage/tensor.hpp>

#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace generate {

using token_id = std::int32_t;

struct llama_options {
    activations products = activations::automatic; ///< with quantised weights
    kv_options kv;
    index_t context = 0; ///< positions; 0: what the model was trained for
    rope_scaling rope = rope_scaling::ntk; ///< of contexts beyond
    index_t chunk = 256; ///< most tokens that run together: their activations stay in the second-level cache
    ts::peft::adapter const* adapter = nullptr; ///< read while the model is made; null: none
    ts::memory_arena* arena = nullptr; ///< where the weights are placed, to outlive the model; null: memory of its own
};

/// What a model is made of: the weights as they are stored, any KV cache. Another type with these members makes a model of
/// other weights (examples/compress).
template <class Exec>
struct stored_parts {
    using projection_type = projection<Exec>;
    using kv_type = kv_memory;
    /// Called for every projection, in the order of their use; see projection's constructor.
    projection_type operator()(Exec const& exec, std::span<ts::gguf::tensor_entry const* const> tensors, activations how,
                               ts::memory_arena& arena, std::vector<std::optional<matrix_adapter>>&& adapters) const {
        return projection_type{exec, tensors, how, arena, std::move(adapters)};
    }
};

/// The model, its KV cache and its buffers; the file's bytes must outlive it.
template <class Exec, class Parts = stored_parts<Exec>>
class llama {
public:
    using projection_type = typename Parts::projection_type;

    /// @throws tessera::format_error, tessera::unsupported_error when the file holds no such model
    llama(Exec const& exec, ts::gguf::file const& file, llama_options const& options = {}, Parts const& parts = {});

    hyperparameters const& sizes() const noexcept { return sizes_; }
    llama_options const& options() const noexcept { return options_; }
    index_t vocabulary() const noexcept { return table_.rows(); }
    index_t position() const { return kv_.position(); }
    index_t context() const noexcept { return options_.context; }
    /// Of the placed weights.
    index_t weight_bytes() const;
    index_t kv_bytes() const { return kv_.bytes(); }
    std::string kv_name() const { return kv_.name(); }
    /// Tokens that the next step sees.
    index_t kv_tokens() const { return kv_.tokens(); }
    void clear() { kv_.clear(); }

    /// Runs tokens behind those before; the logits of the last one. Allocates nothing, but where a policy forgets or chooses tokens.
    std::span<float const> operator()(std::span<token_id const> tokens) {
        std::size_t const chunk = static_cast<std::size_t>(options_.chunk);
        for (; tokens.size() > chunk; tokens = tokens.subspan(chunk)) forward(tokens.first(chunk), 0);
        ts::matrix_view<float const> const logits = forward(tokens, 1);
        return {logits.data_handle(), static_cast<std::size_t>(logits.extent(1))};
    }

    /// Runs at most a chunk of tokens; the logits of the last `wanted` of them.
    ts::matrix_view<float const> forward(std::span<token_id const> tokens, index_t wanted);

private:
    struct layer {
        std::vector<float> attention_norm;
        projection_type qkv;
        projection_type output;
        std::vector<float> feed_forward_norm;
        projection_type gate_up;
        projection_type down;
    };

    /// Reads tensors by name and remembers which.
    class loader;

    static ts::vector_view<float const> vector_of(std::vector<float> const& v) {
        return ts::vector_view<float const>{v.data(), static_cast<index_t>(v.size())};
    }
    /// Columns [first, first + heads * head_dim) of every row, as heads.
    template <class T>
    ts::tensor_view<T, 3> heads_of(ts::matrix_view<T> const& rows, index_t first, index_t heads) const {
        index_t const strides[] = {rows.stride(0), sizes_.head_dim, 1};
        return {rows.data_handle() + first, {{rows.extent(0), heads, sizes_.head_dim}, strides}};
    }
    static ts::matrix_view<float> last_rows(ts::matrix_view<float> const& x, index_t n) {
        return ts::rows(x, x.extent(0) - n, x.extent(0));
    }
    void reserve();

    Exec exec_;
    hyperparameters sizes_;
    llama_options options_;
    embedding_table table_;
    ts::memory_arena arena_; // the placed weights, in the order of their use
    std::vector<layer> layers_;
    std::vector<float> norm_;
    projection_type head_;
    ts::rope_table rotations_;
    typename Parts::kv_type kv_;
    // (chunk, ...)
    ts::matrix<float> x_;        // the residual stream
    ts::matrix<float> normed_;   // (…, width)
    ts::matrix<float> qkv_;      // (…, (heads + 2 kv_heads) head_dim)
    ts::matrix<float> attended_; // (…, heads head_dim)
    ts::matrix<float> hidden_;   // (…, 2 feed_forward)
    ts::matrix<float> logits_;   // (wanted, vocabulary)
};

template <class Exec>
llama(Exec const&, ts::gguf::file const&, llama_options const& = {}) -> llama<Exec>;

template <class Exec, class Parts>
class llama<Exec, Parts>::loader {
public:
    loader(Exec const& exec, ts::gguf::file const& file, Parts const& parts, activations how, ts::memory_arena& arena,
           matrix_adapters const& adapters)
        : exec_{exec}, file_{file}, parts_{parts}, how_{how}, arena_{arena}, adapters_{adapters} {}

    ts::gguf::tensor_entry const& matrix(std::string const& name, index_t rows, index_t columns) {
        ts::gguf::tensor_entry const& t = file_.tensor(name);
        used_.insert(t.name);
        if (t.cols() != columns || (rows >= 0 && t.rows() != rows))
            ts::detail::raise<ts::format_error>(file_.name() + ": tensor '" + name + "' is " + std::to_string(t.rows()) +
                                                " x " + std::to_string(t.cols()) + ", expected " +
                                                (rows >= 0 ? std::to_string(rows) : "vocabulary") + " x " +
                                                std::to_string(columns));
        return t;
    }

    std::vector<float> vector(std::string const& name, index_t size) {
        ts::gguf::tensor_entry const& t = matrix(name, 1, size);
        std::vector<float> out(static_cast<std::size_t>(size));
        detail::with_storage(t, [&](auto const& w) {
            for (index_t i = 0; i < size; ++i) out[static_cast<std::size_t>(i)] = static_cast<float>(w(0, i));
        });
        return out;
    }

    struct part {
        std::string name;
        index_t rows;
    };
    projection_type stack(index_t columns, std::initializer_list<part> parts) {
        std::vector<ts::gguf::tensor_entry const*> tensors;
        std::vector<std::optional<matrix_adapter>> adapters;
        for (part const& p : parts) {
            tensors.push_back(&matrix(p.name, p.rows, columns));
            adapters.push_back(adapters_.find(p.name, p.rows, columns));
        }
        return parts_(exec_, tensors, how_, arena_, std::move(adapters));
    }

    /// A tensor that nobody asked for means something that is not done here.
    void check_all_used() const {
        adapters_.check_all_used();
        for (ts::gguf::tensor_entry const& t : file_.tensors())
            if (!used_.contains(t.name))
                ts::detail::raise<ts::unsupported_error>(file_.name() + ": tensor " + ts::gguf::detail::quoted_name(t.name) +
                                                         " has no place in a llama model as it is known here");
    }

private:
    Exec const& exec_;
    ts::gguf::file const& file_;
    Parts const& parts_;
    activations how_;
    ts::memory_arena& arena_;
    matrix_adapters adapters_;
    std::set<std::string_view> used_;
};

template <class Exec, class Parts>
llama<Exec, Parts>::llama(Exec const& exec, ts::gguf::file const& file, llama_options const& options, Parts const& parts)
    : exec_{exec}, sizes_{read_hyperparameters(file)}, options_{options} {
    auto const& s = sizes_;
    if (options_.context == 0) options_.context = s.context;
    ts::check::within("llama", "context", options_.context, 1, index_t{1} << 24);
    ts::check::within("llama", "chunk", options_.chunk, 1, 1 << 16);
    options_.kv.tokens = options_.kv.room(options_.context, options_.chunk);
    ts::check::within("llama", "room in the KV cache", options_.kv.tokens, 1, index_t{1} << 24);
    options_.chunk = ts::minimum(options_.chunk, options_.kv.tokens);

    loader load{exec_, file, parts, options_.products, options_.arena != nullptr ? *options_.arena : arena_,
                matrix_adapters{options_.adapter, s.head_dim}};
    auto const& embedding = load.matrix("token_embd.weight", -1, s.width);
    table_ = embedding_table{embedding};
    index_t const q_rows = s.heads * s.head_dim;
    index_t const kv_rows = s.kv_heads * s.head_dim;
    for (index_t i = 0; i < s.layers; ++i) {
        std::string const at = "blk." + std::to_string(i) + ".";
        layer l;
        l.attention_norm = load.vector(at + "attn_norm.weight", s.width);
        l.qkv = load.stack(s.width, {{at + "attn_q.weight", q_rows},
                                     {at + "attn_k.weight", kv_rows},
                                     {at + "attn_v.weight", kv_rows}});
        l.output = load.stack(q_rows, {{at + "attn_output.weight", s.width}});
        l.feed_forward_norm = load.vector(at + "ffn_norm.weight", s.width);
        l.gate_up = load.stack(s.width, {{at + "ffn_gate.weight", s.feed_forward}, {at + "ffn_up.weight", s.feed_forward}});
        l.down = load.stack(s.feed_forward, {{at + "ffn_down.weight", s.width}});
        layers_.push_back(std::move(l));
    }
    norm_ = load.vector("output_norm.weight", s.width);
    bool const is_tied = file.find_tensor("output.weight") == nullptr;
    head_ = load.stack(s.width, {{is_tied ? "token_embd.weight" : "output.weight", vocabulary()}});
    load.check_all_used();
    options_.adapter = nullptr;

    rotations_ = scaled_rotations(s, options_.context, options_.rope);
    kv_ = typename Parts::kv_type{options_.kv, s.layers, options_.kv.tokens, s.kv_heads, s.head_dim};
    x_ = ts::matrix<float>{options_.chunk, s.width};
    normed_ = ts::matrix<float>{options_.chunk, s.width};
    qkv_ = ts::matrix<float>{options_.chunk, q_rows + 2 * kv_rows};
    attended_ = ts::matrix<float>{options_.chunk, q_rows};
    hidden_ = ts::matrix<float>{options_.chunk, 2 * s.feed_forward};
    logits_ = ts::matrix<float>{1, vocabulary()};
    reserve();
}

/// The largest scratch of any call but those of policies, so that none of them allocates.
template <class Exec, class Parts>
void llama<Exec, Parts>::reserve() {
    index_t most = 0;
    auto const& s = sizes_;
    // Few and many rows are different kernels.
    for (index_t const m : {index_t{1}, options_.chunk}) {
        auto const rows = [&](ts::matrix<float> const& x) { return ts::rows(x.view(), 0, m); };
        for (layer const& l : layers_) {
            most = ts::maximum(most, l.qkv.workspace_bytes(exec_, rows(normed_)));
            most = ts::maximum(most, l.output.workspace_bytes(exec_, rows(attended_)));
            most = ts::maximum(most, l.gate_up.workspace_bytes(exec_, rows(normed_)));
            most = ts::maximum(most, l.down.workspace_bytes(exec_, ts::columns(rows(hidden_), 0, s.feed_forward)));
        }
        most = ts::maximum(most, head_.workspace_bytes(exec_, ts::rows(normed_.view(), 0, 1)));
        ts::attention_shape const shape{m, s.heads, s.kv_heads, s.head_dim, s.head_dim, options_.kv.tokens};
        most = ts::maximum(most, ts::workspace_bytes(exec_, shape));
    }
    exec_.reserve(most);
}

template <class Exec, class Parts>
index_t llama<Exec, Parts>::weight_bytes() const {
    index_t sum = head_.bytes();
    for (layer const& l : layers_) sum += l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes();
    return sum;
}

template <class Exec, class Parts>
ts::matrix_view<float const> llama<Exec, Parts>::forward(std::span<token_id const> tokens, index_t wanted) {
    auto const& s = sizes_;
    index_t m = static_cast<index_t>(tokens.size());
    index_t const first = position();
    ts::check::within("llama", "tokens at once", m, 1, options_.chunk);
    ts::check::within("llama", "position", first + m, 0, options_.context);
    ts::check::within("llama", "rows of logits", wanted, 0, m);
    if (wanted > logits_.extent(0)) logits_ = ts::matrix<float>{wanted, vocabulary()};

    auto x = ts::rows(x_.view(), 0, m);
    table_.gather(exec_, ts::vector_view<token_id const>{tokens.data(), m}, x);
    for (index_t i = 0; i < s.layers; ++i) {
        layer const& l = layers_[static_cast<std::size_t>(i)];
        auto const normed = ts::rows(normed_.view(), 0, m);
        auto qkv = ts::rows(qkv_.view(), 0, m);
        ts::rms_norm(exec_, x, vector_of(l.attention_norm), s.epsilon, normed);
        l.qkv.apply(exec_, normed, qkv);
        auto const turned = heads_of(qkv, 0, s.heads + s.kv_heads); // query and key heads
        ts::rope(exec_, ts::rope_interleaved{}, turned, rotations_, first, turned);
        kv_.append(exec_, i, heads_of(qkv, s.heads * s.head_dim, s.kv_heads),
                   heads_of(qkv, (s.heads + s.kv_heads) * s.head_dim, s.kv_heads));
        if (i + 1 == s.layers && !kv_.wants_all_queries()) { // of the last layer only the rows that make logits are needed
            m = wanted;
            x = last_rows(x, m);
            qkv = last_rows(qkv, m);
        }
        auto const attended = ts::rows(attended_.view(), 0, m);
        if (m > 0) kv_.attend(exec_, i, heads_of(qkv, 0, s.heads), heads_of(attended, 0, s.heads));
        kv_.forget(exec_, i);
        if (m == 0) break;
        l.output.apply(exec_, attended, x, ts::residual{x});

        auto const again = ts::rows(normed_.view(), 0, m);
        auto const hidden = ts::rows(hidden_.view(), 0, m);
        auto const gate = ts::columns(hidden, 0, s.feed_forward);
        auto const up = ts::columns(hidden, s.feed_forward, 2 * s.feed_forward);
        ts::rms_norm(exec_, x, vector_of(l.feed_forward_norm), s.epsilon, again);
        l.gate_up.apply(exec_, again, hidden);
        ts::swiglu(exec_, gate, up, gate);
        l.down.apply(exec_, gate, x, ts::residual{x});
    }
    m = wanted;
    x = last_rows(x, m);
    auto const logits = ts::rows(logits_.view(), 0, m);
    if (m == 0) return logits;
    auto const normed = ts::rows(normed_.view(), 0, m);
    ts::rms_norm(exec_, x, vector_of(norm_), s.epsilon, normed);
    head_.apply(exec_, normed, logits);
    return logits;
}

/// In model.cpp, which programs link.
extern template class llama<backend>;

} // namespace generate
