// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A LoRA or DoRA adapter in PEFT's files, applied beside the model's weights, which stay as they are stored:
///
///     y = W x + s B (A x),   DoRA: y = m / |W + s B A| (W x + s B (A x))

#include <tessera/adapter/dora.hpp>
#include <tessera/interop/peft.hpp>

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace generate {

namespace ts = tessera;
using ts::index_t;

/// The adapter of one matrix, its rows in the order of the model's file.
struct matrix_adapter {
    ts::matrix<float> b; // (n, r)
    ts::matrix<float> a; // (r, k)
    float scale = 1;
    ts::vector<float> magnitude; ///< (n) of DoRA, otherwise empty

    auto low_rank() const& { return ts::low_rank{b.view(), a.view(), scale}; }
    void low_rank() const&& = delete;
    using low_rank_type = ts::low_rank<ts::linear<ts::matrix_view<float const>>, ts::linear<ts::matrix_view<float const>>>;
};

/// The adapters of a model by the names that GGUF gives its matrices; remembers which were asked for.
class matrix_adapters {
public:
    /// @param source null: none; must outlive this
    matrix_adapters(ts::peft::adapter const* source, index_t head_dim) noexcept : source_{source}, head_dim_{head_dim} {}

    /// @throws tessera::format_error where the adapter does not fit a matrix (rows, columns)
    std::optional<matrix_adapter> find(std::string const& tensor, index_t rows, index_t columns) {
        auto const* const m = source_ == nullptr ? nullptr : source_->find(module_of(tensor));
        if (m == nullptr) return std::nullopt;
        used_.insert(m->name);
        if (m->b.extent(0) != rows || m->a.extent(1) != columns)
            ts::detail::raise<ts::format_error>("adapter of '" + m->name + "' is for a matrix " + std::to_string(m->b.extent(0)) +
                                                " x " + std::to_string(m->a.extent(1)) + ", the model's is " +
                                                std::to_string(rows) + " x " + std::to_string(columns));
        matrix_adapter out{ts::matrix<float>{rows, m->rank()}, ts::matrix<float>{m->rank(), columns}, m->scale,
                           ts::vector<float>{m->magnitude.size()}};
        index_t const head_dim = is_turned(tensor) ? head_dim_ : 0;
        for (index_t n = 0; n < rows; ++n) {
            index_t const from = head_dim == 0 ? n : row_in_halves(n, head_dim);
            for (index_t r = 0; r < m->rank(); ++r) out.b(n, r) = m->b(from, r);
            if (out.magnitude.size() != 0) out.magnitude(n) = m->magnitude(from);
        }
        for (index_t i = 0; i < out.a.size(); ++i) out.a.data()[i] = m->a.data()[i];
        return out;
    }

    /// A module that no matrix asked for would be left out in silence.
    void check_all_used() const {
        if (source_ == nullptr) return;
        for (ts::peft::module_adapter const& m : source_->modules)
            if (!used_.contains(m.name))
                ts::detail::raise<ts::unsupported_error>("adapter of '" + m.name + "' has no place in a llama model as it is known here");
    }

private:
    /// "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj".
    static std::string module_of(std::string const& tensor) {
        static constexpr std::pair<std::string_view, char const*> names[] = {
            {".attn_q.weight", ".self_attn.q_proj"},      {".attn_k.weight", ".self_attn.k_proj"},
            {".attn_v.weight", ".self_attn.v_proj"},      {".attn_output.weight", ".self_attn.o_proj"},
            {".ffn_gate.weight", ".mlp.gate_proj"},       {".ffn_up.weight", ".mlp.up_proj"},
            {".ffn_down.weight", ".mlp.down_proj"}};
        for (auto const& [end, module] : names)
            if (tensor.starts_with("blk.") && tensor.ends_with(end))
                return "model.layers." + tensor.substr(4, tensor.size() - 4 - end.size()) + module;
        return "lm_head";
    }
    static bool is_turned(std::string_view tensor) noexcept {
        return tensor.ends_with(".attn_q.weight") || tensor.ends_with(".attn_k.weight");
    }
    /// GGUF stores the rows of Wq and Wk so that RoPE turns rows (2i, 2i + 1) of a head; PEFT's model turns (i, i + d/2).
    static constexpr index_t row_in_halves(index_t n, index_t head_dim) noexcept {
        index_t const within = n % head_dim;
        return n - within + within / 2 + within % 2 * (head_dim / 2);
    }

    ts::peft::adapter const* source_;
    index_t head_dim_;
    std::set<std::string_view> used_;
};

} // namespace generate
