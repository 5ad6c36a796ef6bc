// SPDX-License-Identifier: MIT
// `generate --adapter`: LoRA and DoRA beside the weights against the weights that they stand for, merged in double into a
// synthetic model, and against PEFT on the real one (where its file is at hand).

#include <doctest/doctest.h>

#include "../../examples/generate/llama.hpp"
#include "../../examples/generate/options.hpp"
#include "../../examples/generate/synthetic.hpp"
#include "greedy_judge.hpp"
#include "naive_llama.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

namespace ts = tessera;
using namespace generate;
using ts::gguf::tensor_type;
using backend = ts::cpu<>;

/// A synthetic model of float32 weights in memory that can be changed.
struct float_model {
    float_model() : bytes{static_cast<index_t>(written().size())} {
        auto const file_bytes = written();
        std::memcpy(bytes.data(), file_bytes.data(), file_bytes.size());
        file = ts::gguf::parse({bytes.data(), file_bytes.size()}, "synthetic");
    }
    static std::vector<std::byte> written() {
        synthetic_model m;
        m.table = m.attention = m.value = m.feed = tensor_type::f32;
        m.layers = 2;
        return write_synthetic(m);
    }
    float* weights(std::string const& name) {
        return reinterpret_cast<float*>(bytes.data() + file.tensor(name).offset);
    }
    ts::buffer<std::byte> bytes;
    ts::gguf::file file;
};

struct place_in_model {
    char const* module;
    char const* tensor;
    bool is_turned;
};
constexpr place_in_model places[] = {{".self_attn.q_proj", ".attn_q.weight", true},
                                     {".self_attn.k_proj", ".attn_k.weight", true},
                                     {".self_attn.v_proj", ".attn_v.weight", false},
                                     {".self_attn.o_proj", ".attn_output.weight", false},
                                     {".mlp.gate_proj", ".ffn_gate.weight", false},
                                     {".mlp.up_proj", ".ffn_up.weight", false},
                                     {".mlp.down_proj", ".ffn_down.weight", false}};

/// Random factors for every matrix of `model` but the first k's of layer 1.
ts::peft::adapter random_adapter(float_model& model, bool use_dora) {
    ts::peft::adapter out;
    out.config.r = 3;
    out.config.lora_alpha = 1.5;
    out.config.use_dora = use_dora;
    std::uint64_t stream = 0;
    for (int layer = 0; layer < 2; ++layer)
        for (place_in_model const& p : places) {
            if (layer == 1 && p.is_turned) continue;
            auto const& t = model.file.tensor("blk." + std::to_string(layer) + p.tensor);
            ts::peft::module_adapter m{"model.layers." + std::to_string(layer) + p.module, ts::matrix<float>{t.rows(), 3},
                                       ts::matrix<float>{3, t.cols()}, ts::vector<float>{use_dora ? t.rows() : 0}, 0.5f};
            ts::philox const random{3, stream++};
            for (index_t i = 0; i < m.b.size(); ++i) m.b.data()[i] = 0.3f * random.normal(static_cast<std::uint64_t>(i));
            for (index_t i = 0; i < m.a.size(); ++i) m.a.data()[i] = 0.1f * random.normal(static_cast<std::uint64_t>(i) + 9999);
            for (index_t i = 0; i < m.magnitude.size(); ++i)
                m.magnitude(i) = 1.0f + 0.3f * random.normal(static_cast<std::uint64_t>(i) + 77777);
            out.modules.push_back(std::move(m));
        }
    return out;
}

/// W0 + s B A, its rows of the length m, in double; row i of a head of Wq and Wk is row 2i or 2i + 1 - d in the file.
void merge(ts::peft::adapter const& a, float_model& model, index_t head_dim) {
    for (int layer = 0; layer < 2; ++layer)
        for (place_in_model const& p : places) {
            auto const* const m = a.find("model.layers." + std::to_string(layer) + p.module);
            if (m == nullptr) continue;
            std::string const name = "blk." + std::to_string(layer) + p.tensor;
            index_t const columns = m->a.extent(1);
            for (index_t n = 0; n < m->b.extent(0); ++n) {
                index_t const i = n % head_dim;
                index_t const half = head_dim / 2;
                index_t const row = !p.is_turned ? n : n - i + (i < half ? 2 * i : 2 * (i - half) + 1);
                float* const w = model.weights(name) + row * columns;
                std::vector<double> sum(static_cast<std::size_t>(columns));
                double squares = 0;
                for (index_t k = 0; k < columns; ++k) {
                    double v = static_cast<double>(w[k]);
                    for (index_t r = 0; r < 3; ++r) v += 0.5 * static_cast<double>(m->b(n, r)) * static_cast<double>(m->a(r, k));
                    sum[static_cast<std::size_t>(k)] = v;
                    squares += v * v;
                }
                double const f = m->magnitude.size() == 0 ? 1.0 : static_cast<double>(m->magnitude(n)) / std::sqrt(squares);
                for (index_t k = 0; k < columns; ++k) w[k] = static_cast<float>(f * sum[static_cast<std::size_t>(k)]);
            }
        }
}

/// The largest KL over tokens that run in chunks.
double largest_divergence(std::vector<conformance::row> const& expected, llama<backend>& model,
                          std::span<token_id const> tokens, std::size_t chunk) {
    model.clear();
    double most = 0;
    for (std::size_t i = 0; i < tokens.size(); i += chunk) {
        std::size_t const n = std::min(chunk, tokens.size() - i);
        auto const logits = model.forward(tokens.subspan(i, n), static_cast<index_t>(n));
        for (std::size_t r = 0; r < n; ++r) {
            std::vector<float> const p(expected[i + r].begin(), expected[i + r].end());
            float const* const q = &logits(static_cast<index_t>(r), 0);
            most = std::max(most, std::fabs(conformance::divergence(p, {q, p.size()})));
        }
    }
    return most;
}

} // namespace

TEST_CASE("an adapter beside the weights is the merged model") {
    std::vector<token_id> tokens;
    for (std::uint64_t i = 0; i < 19; ++i) tokens.push_back(static_cast<token_id>(ts::philox{7}.bits(i) % 260u));
    for (bool const use_dora : {false, true}) {
        CAPTURE(use_dora);
        float_model model;
        ts::peft::adapter const adapter = random_adapter(model, use_dora);
        llama_options o;
        o.products = activations::exact;
        o.kv.formats = "fp32";
        o.context = 64;
        o.adapter = &adapter;
        ts::workspace scratch;
        llama adapted{backend{{}, scratch}, model.file, o};
        index_t const reserved = scratch.capacity();
        o.adapter = nullptr;
        llama plain{backend{}, model.file, o};
        merge(adapter, model, 32);
        auto const expected = conformance::naive_llama{model.file}(tokens);
        // Rounding, as in generate_test.cpp; the merged weights are rounded to float32 once more.
        CHECK(largest_divergence(expected, adapted, tokens, 19) <= 1e-8);
        CHECK(largest_divergence(expected, adapted, tokens, 1) <= 1e-8);
        CHECK(largest_divergence(expected, plain, tokens, 19) > 1e-2); // it does something
        CHECK(scratch.capacity() == reserved);
    }
}

TEST_CASE("an adapter that has no place in the model is refused") {
    float_model model;
    ts::peft::adapter adapter = random_adapter(model, false);
    llama_options o;
    o.context = 8;
    o.adapter = &adapter;
    auto const load = [&] { llama made{backend{}, model.file, o}; };
    adapter.modules[0].name = "model.layers.7.self_attn.q_proj";
    CHECK_THROWS_WITH_AS(load(), doctest::Contains("'model.layers.7.self_attn.q_proj' has no place"), ts::unsupported_error);
    adapter.modules[0].name = "model.layers.0.mlp.down_proj";
    std::swap(adapter.modules[0], adapter.modules.back());
    adapter.modules.pop_back();
    adapter.modules.back().a = ts::matrix<float>{3, 5};
    CHECK_THROWS_WITH_AS(load(), doctest::Contains("is for a matrix"), ts::format_error);
}

TEST_CASE("SmolLM2-135M-Instruct with a LoRA and a DoRA against PEFT") {
    char const* const named = std::getenv("TESSERA_TEST_MODEL");
    std::string const path = named != nullptr ? std::string{named} : default_model_path();
    std::FILE* const present = std::fopen(path.c_str(), "rb");
    if (present == nullptr) {
        MESSAGE("skipped: no model at ", path, " (set TESSERA_TEST_MODEL, or run examples/run.sh once)");
        return;
    }
    std::fclose(present);
    ts::mapped_file const bytes{path};
    ts::gguf::file const file = ts::gguf::parse(bytes.bytes(), path);
    for (std::string const name : {"lora", "dora"}) {
        CAPTURE(name);
        std::string const folder = TESSERA_TEST_DATA "/model/adapters/";
        conformance::greedy_judge const reference{folder + name + ".bin"};
        ts::peft::adapter const adapter = ts::peft::read(folder + name);
        for (activations const products : {activations::exact, activations::int8_per_group}) {
            llama_options o;
            o.products = products;
            o.kv.formats = products == activations::exact ? "fp32" : "fp16";
            o.context = 512;
            o.adapter = &adapter;
            llama model{backend{}, file, o};
            double mean = 0;
            double largest = 0;
            std::size_t other_tokens = 0;
            for (std::size_t p = 0; p < reference.prompts().size(); ++p) {
                auto const& prompt = reference.prompts()[p];
                model.clear();
                std::span<float const> logits = model(prompt.tokens);
                for (std::size_t s = 0; s < reference.steps(); ++s) {
                    double const kl = reference.divergence_at(p, s, logits);
                    mean += kl / static_cast<double>(reference.steps() * reference.prompts().size());
                    largest = std::max(largest, kl);
                    other_tokens += std::max_element(logits.begin(), logits.end()) - logits.begin() != prompt.continuation[s];
                    if (s + 1 < reference.steps()) logits = model({&prompt.continuation[s], 1});
                }
            }
            MESSAGE(name, ", activations ", std::string{name_of(products)}, ": mean KL ", mean, ", largest ", largest, ", ",
                    other_tokens, " most probable tokens differ");
            if (products == activations::exact) {
                CHECK(largest <= 1e-4);
                CHECK(other_tokens == 0);
            } else {
                CHECK(mean <= 5e-3); // as without an adapter
            }
        }
    }
}
