// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention on the CPU: which form a call takes, its scratch memory, and what runs in parallel. Both forms read
/// float32, fp16, bf16 and int8 caches and add in float32; bits depend on the architecture and the arguments only.

#include "attention_decode.hpp"
#include "attention_prefill.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Arch, class Parallel, class Arguments>
struct kernel<op::attention, cpu<Arch, Parallel>, Arguments> {
    using exec_type = cpu<Arch, Parallel>;
    using prefill_scratch = detail::prefill_scratch<Arch>;

    struct plan_type {
        prefill_scratch* prefill;        // (workers), or null
        detail::decode_scratch* decode;  // (workers), or null
        detail::decode_states states;
    };

    /// A register of queries is worth filling from a quarter on; with fewer the cache is read as for one.
    static constexpr bool is_decode(attention_shape const& s) noexcept { return 4 * s.queries <= simd::lanes<Arch>; }

    template <class Arena>
    static plan_type plan(exec_type const& exec, attention_shape const& s, Arena& arena) {
        index_t const workers = exec.parallel().concurrency();
        plan_type p{};
        if (is_decode(s)) {
            index_t const rows = s.queries * s.group();
            index_t const parts = ceil_div(s.keys, detail::decode_tile<Arch>::part);
            index_t const stride = round_up(s.value_dim, simd::lanes<Arch>);
            index_t const states = detail::saturated_product(s.kv_heads, parts, rows);
            p.states = {arena.template carve<float>(states, stride), arena.template carve<float>(states),
                        arena.template carve<float>(states), parts, rows, stride};
            p.decode = arena.template carve<detail::decode_scratch>(workers);
            for (index_t w = 0; w < workers; ++w) {
                auto const scratch = carve_decode(s, rows, arena);
                if (p.decode != nullptr) p.decode[w] = scratch;
            }
        } else {
            p.prefill = arena.template carve<prefill_scratch>(workers);
            for (index_t w = 0; w < workers; ++w) {
                auto const scratch = prefill_scratch::carve(s, arena);
                if (p.prefill != nullptr) p.prefill[w] = scratch;
            }
        }
        return p;
    }

    static void run(exec_type const& exec, Arguments const& a, plan_type const& p) noexcept {
        if (is_decode(a.shape()))
            decode(exec, a, p);
        else
            prefill(exec, a, p);
    }

private:
    using decode_tile = detail::decode_tile<Arch>;

    template <class Arena>
    static detail::decode_scratch carve_decode(attention_shape const& s, index_t rows, Arena& arena) {
        detail::decode_scratch r{};
        r.queries = arena.template carve<float>(rows, round_up(s.key_dim, simd::lanes<Arch>));
        r.scores = arena.template carve<float>(rows * decode_tile::keys + simd::lanes<Arch>);
        r.factors = arena.template carve<float>(rows);
        r.keys = arena.template carve<float>(decode_tile::keys, s.key_dim);
        r.values = arena.template carve<float>(decode_tile::keys, s.value_dim);
        return r;
    }

    static void prefill(exec_type const& exec, Arguments const& a, plan_type const& p) noexcept {
        using tile = detail::attention_tile<Arch>;
        attention_shape const s = a.shape();
        index_t const registers = ceil_div(s.queries, tile::width) * s.group();
        // Blocks of equal size, and the last first: with a causal mask they see most.
        index_t const blocks = ceil_div(registers, prefill_scratch::tiles(s) * tile::vectors);
        index_t const step = round_up(ceil_div(registers, maximum(blocks, 1)), tile::vectors);
        parallel_for(exec.parallel(), blocks * s.kv_heads, 1, [&](index_t task, index_t, index_t worker) noexcept {
            index_t const first = (blocks - 1 - task / s.kv_heads) * step;
            index_t const last = minimum(first + step, registers);
            if (first < last)
                detail::prefill_block<Arch, Arguments>{a, p.prefill[worker], task % s.kv_heads, first, last}.run();
        });
    }

    static void decode(exec_type const& exec, Arguments const& a, plan_type const& p) noexcept {
        attention_shape const s = a.shape();
        parallel_for(exec.parallel(), s.kv_heads * p.states.parts, 1,
                     [&](index_t task, index_t, index_t worker) noexcept {
                         index_t const head = task / p.states.parts;
                         detail::decode_part<Arch, Arguments>{a, p.decode[worker], p.states, head,
                                                              task % p.states.parts}.run();
                     });
        index_t const rows = s.kv_heads * p.states.rows;
        parallel_for(exec.parallel(), rows, 64, [&](index_t first, index_t last, index_t) noexcept {
            for (index_t r = first; r < last; ++r) write(a, p.states, r / p.states.rows, r % p.states.rows);
        });
    }

    /// Merges the parts of one row, in order, and writes its output.
    static void write(Arguments const& a, detail::decode_states const& s, index_t kv_head, index_t row) noexcept {
        index_t const group = a.shape().group();
        index_t const head = kv_head * group + row % group;
        index_t const token = row / group;
        auto const state = [&](index_t part) noexcept {
            index_t const i = s.at(kv_head, part) + row;
            return attention_state{s.outputs + i * s.stride, a.kv.value_dim, s.maxima[i], s.sums[i]};
        };
        attention_state total{nullptr, 0};
        if (s.parts > 0) total = state(0);
        for (index_t part = 1; part < s.parts; ++part) merge(total, state(part));
        float const inverse = total.sum == 0.0f ? 0.0f : 1.0f / total.sum;
        using out_type = typename decltype(a.out)::value_type;
        for (index_t d = 0; d < a.kv.value_dim; ++d)
            a.out(token, head, d) = static_cast<out_type>(s.parts == 0 ? 0.0f : total.output[d] * inverse);
        a.set_log_sum_exp(head, token, total.sum == 0.0f ? minus_infinity : total.maximum + std::log(total.sum));
    }
};

} // namespace tessera::inline TESSERA_ABI
