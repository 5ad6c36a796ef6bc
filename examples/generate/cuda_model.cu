// SPDX-License-Identifier: MIT
/// @file
/// The transformer of llama.hpp, in the same words, with device memory.

#include "cuda_model.hpp"

#include "hyperparameters.hpp"

#include <tessera/attention/attention.cuh>
#include <tessera/nn/embedding.cuh>
#include <tessera/tessera.cuh>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace generate {

namespace ts = tessera;
using ts::index_t;

namespace {

using device = ts::cuda<90>;
using matrix_in = ts::device_matrix_view<float const>;
using matrix_out = ts::device_matrix_view<float>;
/// The formats whose kernels the program has.
using formats = ts::format_list<ts::q4_0, ts::q4_1, ts::q8_0, ts::q6_k>;

/// A weight matrix whose format the file decides: y = x Wᵀ.
class product {
public:
    virtual ~product() = default;
    virtual void apply(device const& exec, matrix_in const& x, matrix_out const& y) const = 0;
    virtual index_t workspace_bytes(device const& exec, matrix_in const& x) const = 0;
    virtual index_t bytes() const noexcept = 0;
};

template <class Storage>
class product_of : public product {
public:
    product_of(device const& exec, Storage const& w) : placed_{ts::place(exec, ts::linear{w})} {}
    void apply(device const& exec, matrix_in const& x, matrix_out const& y) const override { ts::apply(exec, placed_.view(), x, y); }
    index_t workspace_bytes(device const& exec, matrix_in const& x) const override { return ts::workspace_bytes(exec, placed_, x); }
    index_t bytes() const noexcept override { return placed_.bytes(); }

private:
    ts::placed<device, ts::linear<Storage>> placed_;
};

std::unique_ptr<product> place(device const& exec, ts::gguf::tensor_entry const& t) {
    return ts::gguf::with_storage(
        t, [&]<class Storage>(Storage const& w) -> std::unique_ptr<product> { return std::make_unique<product_of<Storage>>(exec, w); }, formats{});
}

/// Columns [first, first + heads * dim) of every row, as heads.
template <class T>
ts::device_view<T, 3> heads_of(ts::device_matrix_view<T> const& rows, index_t first, index_t heads, index_t dim) {
    index_t const strides[] = {rows.stride(0), dim, 1};
    using view = ts::device_view<T, 3>;
    return {rows.data_handle() + first, typename view::mapping_type{ts::dynamic_extents<3>{rows.extent(0), heads, dim}, strides}};
}

} // namespace

class cuda_model::state {
public:
    state(ts::gguf::file const& file, cuda_options options) : sizes_{read_hyperparameters(file)} {
        hyperparameters const& s = sizes_;
        if (options.context == 0) options.context = s.context;
        ts::check::within("cuda_model", "context", options.context, 1, index_t{1} << 24);
        ts::check::within("cuda_model", "chunk", options.chunk, 1, 1 << 16);
        chunk_ = options.chunk;
        context_ = options.context;
        ts::gguf::tensor_entry const& table = matrix(file, "token_embd.weight", -1, s.width);
        vocabulary_ = table.rows();
        table_ = upload(table);
        index_t const q_rows = s.heads * s.head_dim;
        index_t const kv_rows = s.kv_heads * s.head_dim;
        for (index_t i = 0; i < s.layers; ++i) {
            std::string const at = "blk." + std::to_string(i) + ".";
            auto const weights = [&](char const* name, index_t rows, index_t columns) {
                return place(exec_, matrix(file, at + name + ".weight", rows, columns));
            };
            layer l;
            l.attention_norm = upload(matrix(file, at + "attn_norm.weight", 1, s.width));
            l.query = weights("attn_q", q_rows, s.width);
            l.key = weights("attn_k", kv_rows, s.width);
            l.value = weights("attn_v", kv_rows, s.width);
            l.output = weights("attn_output", s.width, q_rows);
            l.feed_forward_norm = upload(matrix(file, at + "ffn_norm.weight", 1, s.width));
            l.gate = weights("ffn_gate", s.feed_forward, s.width);
            l.up = weights("ffn_up", s.feed_forward, s.width);
            l.down = weights("ffn_down", s.width, s.feed_forward);
            l.kv = cache{context_, s.kv_heads, s.head_dim};
            layers_.push_back(std::move(l));
        }
        norm_ = upload(matrix(file, "output_norm.weight", 1, s.width));
        bool const is_tied = file.find_tensor("output.weight") == nullptr;
        head_ = place(exec_, matrix(file, is_tied ? "token_embd.weight" : "output.weight", vocabulary_, s.width));
        rotations_.emplace(exec_, ts::rope_table{context_, s.rope_dims, s.rope_base});
        x_ = ts::device_matrix<float>{chunk_, s.width};
        normed_ = ts::device_matrix<float>{chunk_, s.width};
        change_ = ts::device_matrix<float>{chunk_, s.width};
        qkv_ = ts::device_matrix<float>{chunk_, q_rows + 2 * kv_rows};
        attended_ = ts::device_matrix<float>{chunk_, q_rows};
        hidden_ = ts::device_matrix<float>{chunk_, 2 * s.feed_forward};
        there_logits_ = ts::device_matrix<float>{1, vocabulary_};
        logits_ = ts::matrix<float>{1, vocabulary_};
        ids_ = ts::device_vector<std::int32_t>{chunk_};
    }

    std::span<float const> run(std::span<std::int32_t const> tokens) {
        ts::check::at_least("cuda_model", "tokens", static_cast<index_t>(tokens.size()), 1);
        auto const chunk = static_cast<std::size_t>(chunk_);
        for (; tokens.size() > chunk; tokens = tokens.subspan(chunk)) forward(tokens.first(chunk), false);
        forward(tokens, true);
        ts::copy(exec_, there_logits_.view(), logits_.view());
        ts::detail::check_cuda("cuda_model", "cudaStreamSynchronize", cudaStreamSynchronize(nullptr));
        return {logits_.data(), static_cast<std::size_t>(vocabulary_)};
    }
    void clear() {
        for (layer& l : layers_) l.kv.clear();
    }
    index_t vocabulary() const noexcept { return vocabulary_; }
    index_t weight_bytes() const noexcept {
        index_t sum = head_->bytes();
        for (layer const& l : layers_)
            for (auto const* w : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) sum += (*w)->bytes();
        return sum;
    }
    index_t kv_bytes() const noexcept {
        index_t sum = 0;
        for (layer const& l : layers_) sum += l.kv.bytes();
        return sum;
    }

private:
    using cache = ts::device_kv_cache<ts::key<ts::fp16>, ts::value<ts::fp16>>;
    struct layer {
        ts::device_matrix<float> attention_norm;
        std::unique_ptr<product> query, key, value, output;
        ts::device_matrix<float> feed_forward_norm;
        std::unique_ptr<product> gate, up, down;
        cache kv;
    };

    static ts::gguf::tensor_entry const& matrix(ts::gguf::file const& file, std::string const& name, index_t rows, index_t columns) {
        ts::gguf::tensor_entry const& t = file.tensor(name);
        if (t.cols() != columns || (rows >= 0 && t.rows() != rows))
            ts::detail::raise<ts::format_error>(file.name() + ": tensor '" + name + "' is " + std::to_string(t.rows()) + " x " +
                                                std::to_string(t.cols()) + ", expected " + std::to_string(rows) + " x " + std::to_string(columns));
        return t;
    }
    /// A tensor in float32.
    ts::device_matrix<float> upload(ts::gguf::tensor_entry const& t) const {
        ts::matrix<float> here{t.rows(), t.cols()};
        ts::gguf::with_storage(t, [&](auto const& w) {
            for (index_t n = 0; n < t.rows(); ++n)
                for (index_t k = 0; k < t.cols(); ++k) here(n, k) = static_cast<float>(w(n, k));
        }, formats{});
        ts::device_matrix<float> there{t.rows(), t.cols()};
        ts::copy(exec_, std::as_const(here).view(), there.view());
        ts::detail::check_cuda("cuda_model", "cudaStreamSynchronize", cudaStreamSynchronize(nullptr));
        return there;
    }

    void forward(std::span<std::int32_t const> tokens, bool wants_logits) {
        hyperparameters const& s = sizes_;
        auto const m = static_cast<index_t>(tokens.size());
        index_t const first = layers_.front().kv.end_position();
        ts::check::within("cuda_model", "position", first + m, 0, context_);
        auto const rows = [m](ts::device_matrix<float>& x) { return ts::rows(x.view(), 0, m); };
        auto const row = [](ts::device_matrix<float> const& w) { return ts::slice(w.view(), 0, ts::all); };
        auto const ids = ts::slice(ids_.view(), ts::range{0, m});
        ts::copy(exec_, ts::vector_view<std::int32_t const>{tokens.data(), m}, ids);
        auto const x = rows(x_);
        auto const normed = rows(normed_);
        auto const change = rows(change_);
        ts::embedding(exec_, std::as_const(table_), ids, x);
        auto const qkv = rows(qkv_);
        index_t const q_rows = s.heads * s.head_dim;
        index_t const kv_rows = s.kv_heads * s.head_dim;
        auto const hidden = rows(hidden_);
        auto const gate = ts::columns(hidden, 0, s.feed_forward);
        auto const up = ts::columns(hidden, s.feed_forward, 2 * s.feed_forward);
        for (layer& l : layers_) {
            ts::rms_norm(exec_, x, row(l.attention_norm), s.epsilon, normed);
            l.query->apply(exec_, normed, ts::columns(qkv, 0, q_rows));
            l.key->apply(exec_, normed, ts::columns(qkv, q_rows, q_rows + kv_rows));
            l.value->apply(exec_, normed, ts::columns(qkv, q_rows + kv_rows, q_rows + 2 * kv_rows));
            auto const turned = heads_of(qkv, 0, s.heads + s.kv_heads, s.head_dim);
            ts::rope(exec_, ts::rope_interleaved{}, turned, *rotations_, first, turned);
            ts::append(exec_, l.kv, heads_of(qkv, q_rows, s.kv_heads, s.head_dim), heads_of(qkv, q_rows + kv_rows, s.kv_heads, s.head_dim));
            auto const attended = rows(attended_);
            ts::attention(exec_, heads_of(qkv, 0, s.heads, s.head_dim), l.kv, heads_of(attended, 0, s.heads, s.head_dim), ts::causal);
            l.output->apply(exec_, attended, change);
            ts::add(exec_, x, change, x);

            ts::rms_norm(exec_, x, row(l.feed_forward_norm), s.epsilon, normed);
            l.gate->apply(exec_, normed, gate);
            l.up->apply(exec_, normed, up);
            ts::swiglu(exec_, gate, up, gate);
            l.down->apply(exec_, gate, change);
            ts::add(exec_, x, change, x);
        }
        if (!wants_logits) return;
        auto const last = ts::rows(normed, m - 1, m);
        ts::rms_norm(exec_, ts::rows(x, m - 1, m), row(norm_), s.epsilon, last);
        head_->apply(exec_, last, there_logits_.view());
    }

    device exec_;
    hyperparameters sizes_;
    index_t chunk_ = 0;
    index_t context_ = 0;
    index_t vocabulary_ = 0;
    ts::device_matrix<float> table_;
    std::vector<layer> layers_;
    ts::device_matrix<float> norm_;
    std::unique_ptr<product> head_;
    std::optional<ts::device_rope_table> rotations_;
    ts::device_vector<std::int32_t> ids_;
    ts::device_matrix<float> x_, normed_, change_, qkv_, attended_, hidden_, there_logits_;
    ts::matrix<float> logits_;
};

cuda_model::cuda_model(ts::gguf::file const& file, cuda_options const& options) : state_{std::make_unique<state>(file, options)} {}
cuda_model::~cuda_model() = default;
std::span<float const> cuda_model::operator()(std::span<std::int32_t const> tokens) { return state_->run(tokens); }
void cuda_model::clear() { state_->clear(); }
index_t cuda_model::vocabulary() const noexcept { return state_->vocabulary(); }
index_t cuda_model::weight_bytes() const noexcept { return state_->weight_bytes(); }
index_t cuda_model::kv_bytes() const noexcept { return state_->kv_bytes(); }

} // namespace generate
