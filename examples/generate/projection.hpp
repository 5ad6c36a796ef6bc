// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A weight matrix whose format the file decides at run time: a variant of the operators that the library can multiply. The most
/// frequent formats have kernels of their own, all others one operator (`any_coded`): no block format is refused.
/// Weights stay as they are stored; `place` only puts their codes in the order in which this machine reads them.

#include "adapter.hpp"

#include <tessera/dispatch/any_coded.hpp>
#include <tessera/interop/gguf.hpp>
#include <tessera/nn/embedding.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace generate {

namespace ts = tessera;
using ts::index_t;

/// What x becomes in a product with quantised weights.
enum class activations {
    exact,          ///< float32
    int8_per_token, ///< int8, one scale a row
    int8_per_group, ///< int8, one scale for 32 values
    automatic,      ///< bf16 for a chunk of a prompt where the processor has bf16 tiles, else int8_per_group
};

constexpr char const* name_of(activations a) noexcept {
    constexpr char const* names[] = {"float32", "int8, one scale a token", "int8, one scale for 32 values",
                                     "int8, one scale for 32 values (bf16 for many tokens at once, where there are bf16 tiles)"};
    return names[static_cast<int>(a)];
}

namespace detail {

/// What most files of language models hold: with kernels of their own, which each kind of activations makes compile for longer.
using formats = ts::format_list<ts::q4_0, ts::q4_1, ts::q5_0, ts::q8_0, ts::q4_k, ts::q6_k, ts::iq4_nl, ts::iq4_xs>;

/// The blocks of every other format: decoded by it, and multiplied as int8, float32 or bf16.
using other_blocks = ts::any_coded<ts::native_arch>;
/// In formats.cpp, which programs link; nothing where the tensor is of another type, or of one of `formats`.
std::optional<other_blocks> as_other_blocks(ts::gguf::tensor_entry const& t);

/// Storage that takes x in int8 with one scale a row too. That with tables takes one for 32 values instead: it saves a third of
/// the kernels that a format is compiled for.
template <class Storage>
inline constexpr bool takes_int8_per_token = ts::code_source<Storage>::is_integer;
template <>
inline constexpr bool takes_int8_per_token<other_blocks> = true;

/// Calls f(storage) with the tensor as what it is stored as.
template <class F>
decltype(auto) with_storage(ts::gguf::tensor_entry const& t, F&& f) {
    if (auto const w = as_other_blocks(t)) return f(*w);
    return ts::gguf::with_storage(t, f, formats{});
}

/// Whether many tokens at once may go through bf16 tiles.
template <class Op>
inline constexpr bool may_take_bf16 = false;
template <class Storage>
inline constexpr bool may_take_bf16<ts::linear<Storage, ts::int8_per_group<32>>> = true;

/// How a policy holds a leaf: placed on a CPU, as it is in the file for `reference`.
template <class Op>
struct in_file {
    Op op;
    in_file(ts::reference const&, Op const& w, ts::memory_arena*) : op{w} {}
    Op view() const noexcept { return op; }
    static index_t bytes() noexcept { return 0; }
};
template <class Exec, class Op>
using held = std::conditional_t<std::is_same_v<Exec, ts::reference>, in_file<Op>, ts::placed<Exec, Op>>;

template <class Exec, class Storage, class... Preparation>
using held_as = std::variant<held<Exec, ts::linear<Storage, Preparation>>...>;

template <class... Variant>
struct joined;
template <class... A>
struct joined<std::variant<A...>> {
    using type = std::variant<A...>;
};
template <class... A, class... B, class... Rest>
struct joined<std::variant<A...>, std::variant<B...>, Rest...> : joined<std::variant<A..., B...>, Rest...> {};

template <class Exec, class Format>
using held_blocks =
    std::conditional_t<takes_int8_per_token<ts::blocked<Format>>,
                       held_as<Exec, ts::blocked<Format>, ts::as_is, ts::int8_per_token, ts::int8_per_group<32>>,
                       held_as<Exec, ts::blocked<Format>, ts::as_is, ts::int8_per_group<32>>>;

template <class Exec, class List>
struct weights_of;
template <class Exec, class... Format>
struct weights_of<Exec, ts::format_list<Format...>> {
    using type = typename joined<
        held_as<Exec, ts::matrix_view<float const>, ts::as_is>, held_as<Exec, ts::matrix_view<ts::fp16 const>, ts::as_is>,
        held_as<Exec, ts::matrix_view<ts::bf16 const>, ts::as_is>,
        held_as<Exec, other_blocks, ts::as_is, ts::int8_per_token, ts::int8_per_group<32>>,
        held_blocks<Exec, Format>...>::type;
    using table = std::variant<ts::matrix_view<float const>, ts::matrix_view<ts::fp16 const>, ts::matrix_view<ts::bf16 const>,
                               other_blocks, ts::blocked<Format>...>;
};
template <class Exec>
using weights = typename weights_of<Exec, formats>::type;

template <class Exec>
weights<Exec> hold(Exec const& exec, ts::gguf::tensor_entry const& t, activations how, ts::memory_arena& arena) {
    return with_storage(t, [&]<class Storage>(Storage const& w) -> weights<Exec> {
        auto const as = [&]<class P>(P) -> weights<Exec> {
            return weights<Exec>{std::in_place_type<held<Exec, ts::linear<Storage, P>>>, exec, ts::linear<Storage, P>{w}, &arena};
        };
        if constexpr (ts::coded_storage<Storage> || std::is_same_v<Storage, other_blocks>) {
            if constexpr (takes_int8_per_token<Storage>)
                if (how == activations::int8_per_token) return as(ts::int8_per_token{});
            if (how != activations::exact) return as(ts::int8_per_group<32>{});
        }
        return as(ts::as_is{});
    });
}

/// Tensors of one type and width below each other as one tensor; `bytes` holds them where they are more than one.
inline ts::gguf::tensor_entry stack(std::span<ts::gguf::tensor_entry const* const> tensors, ts::buffer<std::byte>& bytes) {
    ts::gguf::tensor_entry stacked = *tensors[0];
    if (tensors.size() == 1) return stacked;
    index_t size = 0;
    for (auto const* t : tensors) size += static_cast<index_t>(t->bytes.size());
    bytes = ts::buffer<std::byte>{size};
    stacked.dims = {stacked.cols(), 0, 1, 1};
    index_t at = 0;
    for (auto const* t : tensors) {
        stacked.dims[1] += t->rows();
        if (!t->bytes.empty()) std::memcpy(bytes.data() + at, t->bytes.data(), t->bytes.size());
        at += static_cast<index_t>(t->bytes.size());
    }
    stacked.bytes = {bytes.data(), static_cast<std::size_t>(size)};
    return stacked;
}

} // namespace detail

/// The matrices of several tensors below each other, multiplied by one x: query, key and value; gate and up. Neighbours of
/// one format are one operand, so x is prepared once and one parallel loop makes all their outputs. A matrix with an adapter
/// stays alone.
template <class Exec>
class projection {
public:
    projection() = default;
    /// The weights are placed in `arena`, which must outlive the projection. `adapters`: of every tensor, or none at all.
    projection(Exec const& exec, std::span<ts::gguf::tensor_entry const* const> tensors, activations how,
               ts::memory_arena& arena, std::vector<std::optional<matrix_adapter>> adapters = {})
        : many_in_bf16_{how == activations::automatic && ts::has_bf16_tiles(exec)} {
        for (std::size_t i = 0; i < tensors.size();) {
            std::size_t end = i + 1;
            auto const has_adapter = [&](std::size_t t) { return t < adapters.size() && adapters[t].has_value(); };
            if constexpr (!std::is_same_v<Exec, ts::reference>)
                while (end < tensors.size() && tensors[end]->type == tensors[i]->type && !has_adapter(i) && !has_adapter(end))
                    ++end;
            add(exec, tensors.subspan(i, end - i), how, arena);
            if (has_adapter(i)) adapt(exec, *tensors[i], std::move(*adapters[i]), arena);
            i = end;
        }
    }

    index_t rows() const noexcept { return rows_; }
    /// Bytes held besides the file's.
    index_t bytes() const {
        index_t sum = 0;
        for (part const& p : parts_) {
            sum += std::visit([](auto const& w) { return w.bytes(); }, p.weights);
            if (p.adapter) sum += p.adapter->bytes();
        }
        return sum;
    }

    /// y = finish(x Wᵀ)
    template <class Finish = ts::no_epilogue>
    void apply(Exec const& exec,
               ts::matrix_view<float const> const& x, // (m, k)
               ts::matrix_view<float> const& y,       // (m, n)
               Finish const& finish = {}) const {
        for (part const& p : parts_)
            visit(p, x.extent(0), [&](auto const& w) {
                auto const out = ts::columns(y, p.first, p.last);
                if (p.adapter)
                    apply_adapted(exec, p, w, x, out, finish);
                else
                    ts::apply(exec, w, x, out, finish);
            });
    }

    index_t workspace_bytes(Exec const& exec, ts::matrix_view<float const> const& x) const {
        index_t most = 0;
        for (part const& p : parts_)
            visit(p, x.extent(0), [&](auto const& w) {
                index_t bytes = ts::workspace_bytes(exec, w, x);
                if (p.adapter)
                    bytes = ts::maximum(bytes, ts::workspace_bytes(exec, p.adapter->view(), x)) +
                            ts::round_up(x.extent(0) * w.rows() * static_cast<index_t>(sizeof(float)), 64);
                most = ts::maximum(most, bytes);
            });
        return most;
    }

private:
    struct part {
        index_t first;
        index_t last;
        detail::weights<Exec> weights;
        std::optional<matrix_adapter> source{}; ///< what `adapter` refers to where it is not placed
        std::optional<detail::held<Exec, matrix_adapter::low_rank_type>> adapter{};
        ts::vector<float> factors{}; ///< of DoRA's rows
    };

    /// y = finish(f (W x + s B (A x))); the base's product waits in the workspace.
    template <class Op, class Finish>
    static void apply_adapted(Exec const& exec, part const& p, Op const& w, ts::matrix_view<float const> const& x,
                              ts::matrix_view<float> const& y, Finish const& finish) {
        ts::workspace_scope scope{exec.scratch()};
        ts::matrix_view<float> const base{scope.carve<float>(x.extent(0) * w.rows()), x.extent(0), w.rows()};
        ts::apply(exec, w, x, base);
        float const* const factors = p.factors.size() == 0 ? nullptr : p.factors.data();
        auto const scaled = [factors](float value, index_t, index_t n) noexcept {
            return factors == nullptr ? value : factors[n] * value;
        };
        ts::apply(exec, p.adapter->view(), x, y,
                  ts::epilogue_pair<ts::epilogue_pair<ts::residual, decltype(scaled)>, Finish>{
                      {ts::residual{base}, scaled}, finish});
    }

    void adapt(Exec const& exec, ts::gguf::tensor_entry const& t, matrix_adapter&& adapter, ts::memory_arena& arena) {
        part& p = parts_.back();
        p.source = std::move(adapter);
        p.adapter.emplace(exec, p.source->low_rank(), &arena);
        if (p.source->magnitude.size() == 0) return;
        p.factors = detail::with_storage(t, [&](auto const& w) {
            return ts::dora_factors(exec, ts::linear{w}, p.source->low_rank(), p.source->magnitude);
        });
    }

    /// f(the operator that multiplies m rows of x)
    template <class F>
    void visit(part const& p, index_t m, F const& f) const {
        std::visit(
            [&](auto const& owner) {
                auto const w = owner.view();
                if constexpr (detail::may_take_bf16<std::remove_const_t<decltype(w)>>)
                    if (many_in_bf16_ && m >= fewest_in_bf16) return f(ts::linear{w.storage(), ts::as_bf16{}});
                f(w);
            },
            p.weights);
    }

    void add(Exec const& exec, std::span<ts::gguf::tensor_entry const* const> tensors, activations how,
             ts::memory_arena& arena) {
        ts::buffer<std::byte> bytes; // of all of them, until they are placed
        ts::gguf::tensor_entry const stacked = detail::stack(tensors, bytes);
        parts_.push_back({rows_, rows_ + stacked.rows(), detail::hold(exec, stacked, how, arena), {}, {}, {}});
        rows_ += stacked.rows();
    }

    static constexpr index_t fewest_in_bf16 = 16; // rows of a tile

    std::vector<part> parts_;
    index_t rows_ = 0;
    bool many_in_bf16_ = false;
};

/// Rows of a matrix in the file, by their index.
class embedding_table {
public:
    embedding_table() = default;
    explicit embedding_table(ts::gguf::tensor_entry const& t)
        : rows_{t.rows()}, table_{detail::with_storage(t, [](auto const& w) { return table{w}; })} {}

    index_t rows() const noexcept { return rows_; }

    template <class Exec>
    void gather(Exec const& exec, ts::vector_view<std::int32_t const> const& ids, // (m)
                ts::matrix_view<float> const& y) const {                          // (m, k)
        std::visit([&](auto const& w) { ts::embedding(exec, w, ids, y); }, table_);
    }

private:
    using table = detail::weights_of<ts::reference, detail::formats>::table;
    index_t rows_ = 0;
    table table_;
};

} // namespace generate
