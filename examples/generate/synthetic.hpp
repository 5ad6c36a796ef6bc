// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A small model with random weights, written by the library's GGUF writer: for tests, and for showing the program where
/// the real model cannot be had. Everything that a real file has is there: ChatML, a byte-level vocabulary with a few
/// merges, quantised matrices. The same seed writes the same bytes.

#include "tokenizer.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/interop/gguf_writer.hpp>

#include <cmath>
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace generate {

namespace ts = tessera;

/// Sizes and formats of the model.
struct synthetic_model {
    ts::index_t layers = 3;
    ts::index_t width = 128;
    ts::index_t heads = 4;
    ts::index_t kv_heads = 2;
    ts::index_t feed_forward = 352;
    ts::index_t context = 4096;
    ts::gguf::tensor_type table = ts::gguf::tensor_type::q8_0; ///< of the embedding, which is the head too unless `untied`
    ts::gguf::tensor_type attention = ts::gguf::tensor_type::q4_1;
    ts::gguf::tensor_type value = ts::gguf::tensor_type::q8_0;
    ts::gguf::tensor_type feed = ts::gguf::tensor_type::q4_1;
    bool untied = false;
    std::uint64_t seed = 20240214;
    /// How matrices of a type that is not known here are encoded; null: as float32, which must be their type.
    void (*encode)(std::vector<float> const& w, std::vector<std::byte>& blocks) = nullptr;
};

/// The bytes of the file.
std::vector<std::byte> write_synthetic(synthetic_model const& m = {});

namespace detail {

class synthetic_writer {
public:
    explicit synthetic_writer(synthetic_model const& m) : m_{m} {}

    std::vector<std::byte> run() {
        sizes();
        vocabulary();
        weights();
        return out_.bytes();
    }

private:
    using tensor_type = ts::gguf::tensor_type;

    void sizes() {
        auto const set = [&](char const* key, ts::index_t value) { out_.set(key, static_cast<std::uint32_t>(value)); };
        out_.set("general.architecture", "llama");
        out_.set("general.name", "synthetic model of random weights");
        set("llama.block_count", m_.layers);
        set("llama.embedding_length", m_.width);
        set("llama.attention.head_count", m_.heads);
        set("llama.attention.head_count_kv", m_.kv_heads);
        set("llama.feed_forward_length", m_.feed_forward);
        set("llama.context_length", m_.context);
        set("llama.rope.dimension_count", m_.width / m_.heads);
        out_.set("llama.rope.freq_base", 10000.0f);
        out_.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    }

    void vocabulary() {
        std::vector<std::string> tokens{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
        std::vector<std::int32_t> types(tokens.size(), 3);
        for (std::uint32_t const code : byte_alphabet()) append_utf8(tokens.emplace_back(), code);
        std::vector<std::string> merges;
        // U+0120 is the space.
        for (auto const& [left, right] : std::initializer_list<std::pair<char const*, char const*>>{
                 {"\u0120", "t"}, {"h", "e"}, {"\u0120t", "he"}, {"i", "n"}, {"\u0120", "a"}, {"e", "r"}, {"o", "n"}}) {
            merges.push_back(std::string{left} + " " + right);
            tokens.push_back(std::string{left} + right);
        }
        types.resize(tokens.size(), 1);
        tokens_ = static_cast<ts::index_t>(tokens.size());
        out_.set("tokenizer.ggml.model", "gpt2");
        out_.set("tokenizer.ggml.pre", "smollm");
        out_.set_array<std::string>("tokenizer.ggml.tokens", tokens);
        out_.set_array<std::int32_t>("tokenizer.ggml.token_type", types);
        out_.set_array<std::string>("tokenizer.ggml.merges", merges);
        out_.set("tokenizer.ggml.bos_token_id", std::uint32_t{1});
        out_.set("tokenizer.ggml.eos_token_id", std::uint32_t{2});
        out_.set("tokenizer.chat_template",
                 "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                 "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
    }

    void weights() {
        ts::index_t const kv = m_.width / m_.heads * m_.kv_heads;
        matrix("token_embd.weight", m_.table, tokens_, m_.width);
        for (ts::index_t i = 0; i < m_.layers; ++i) {
            std::string const at = "blk." + std::to_string(i) + ".";
            norm(at + "attn_norm.weight");
            matrix(at + "attn_q.weight", m_.attention, m_.width, m_.width);
            matrix(at + "attn_k.weight", m_.attention, kv, m_.width);
            matrix(at + "attn_v.weight", m_.value, kv, m_.width);
            matrix(at + "attn_output.weight", m_.attention, m_.width, m_.width);
            norm(at + "ffn_norm.weight");
            matrix(at + "ffn_gate.weight", m_.feed, m_.feed_forward, m_.width);
            matrix(at + "ffn_up.weight", m_.feed, m_.feed_forward, m_.width);
            matrix(at + "ffn_down.weight", m_.feed, m_.width, m_.feed_forward);
        }
        norm("output_norm.weight");
        if (m_.untied) matrix("output.weight", m_.table, tokens_, m_.width);
    }

    std::vector<float> random(ts::index_t n, float spread) {
        ts::philox const numbers{m_.seed, stream_++};
        std::vector<float> out;
        for (std::uint64_t i = 0; static_cast<ts::index_t>(i) < n; ++i) out.push_back(spread * numbers.normal(i));
        return out;
    }

    void norm(std::string const& name) {
        std::vector<float> w = random(m_.width, 0.1f);
        for (float& x : w) x += 1.0f;
        store(name, tensor_type::f32, {m_.width}, w);
    }
    /// Columns of unit variance make sums of the size of x.
    void matrix(std::string const& name, tensor_type type, ts::index_t rows, ts::index_t columns) {
        store(name, type, {columns, rows}, random(rows * columns, 1.0f / std::sqrt(static_cast<float>(columns))));
    }

    void store(std::string const& name, tensor_type type, std::vector<ts::index_t> const& dims, std::vector<float> const& w) {
        std::vector<std::byte>& bytes = data_.emplace_back();
        auto const narrowed = [&]<class T>(T) {
            for (float const x : w) {
                T const value = static_cast<T>(x);
                auto const* const p = reinterpret_cast<std::byte const*>(&value);
                bytes.insert(bytes.end(), p, p + sizeof value);
            }
        };
        auto const encoded = [&]<class Format>(Format) {
            std::vector<typename Format::block> blocks(w.size() / Format::block_size);
            ts::encode_row<Format>(w.data(), static_cast<ts::index_t>(w.size()), blocks.data());
            auto const* const p = reinterpret_cast<std::byte const*>(blocks.data());
            bytes.assign(p, p + blocks.size() * sizeof(blocks[0]));
        };
        switch (type) {
        case tensor_type::f16: narrowed(ts::fp16{}); break;
        case tensor_type::bf16: narrowed(ts::bf16{}); break;
        case tensor_type::q4_0: encoded(ts::q4_0{}); break;
        case tensor_type::q4_1: encoded(ts::q4_1{}); break;
        case tensor_type::q5_0: encoded(ts::q5_0{}); break;
        case tensor_type::q8_0: encoded(ts::q8_0{}); break;
        case tensor_type::q4_k: encoded(ts::q4_k{}); break;
        case tensor_type::q6_k: encoded(ts::q6_k{}); break;
        case tensor_type::iq4_nl: encoded(ts::iq4_nl{}); break;
        case tensor_type::iq4_xs: encoded(ts::iq4_xs{}); break;
        default:
            if (type != tensor_type::f32 && m_.encode != nullptr)
                m_.encode(w, bytes);
            else
                narrowed(0.0f);
        }
        out_.add_tensor(name, type, dims, bytes);
    }

    synthetic_model m_;
    ts::gguf::writer out_;
    std::deque<std::vector<std::byte>> data_; // what out_ refers to
    ts::index_t tokens_ = 0;
    std::uint64_t stream_ = 0;
};

} // namespace detail

inline std::vector<std::byte> write_synthetic(synthetic_model const& m) { return detail::synthetic_writer{m}.run(); }

} // namespace generate
