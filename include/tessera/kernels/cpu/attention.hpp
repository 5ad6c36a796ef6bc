// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention on the CPU: which form a call takes, its scratch memory, and what runs in parallel. Both forms read
/// float32, fp16, bf16 and int8 caches and add in float32; bits depend on the architecture and the arguments only.

#include "attention_any.hpp"
#include "attention_decode.hpp"
#include "attention_prefill.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Arch, class Parallel, class Arguments>
struct kernel<op::attention, cpu<Arch, Parallel>, Arguments> {
    using exec_type = cpu<Arch, Parallel>;
    using prefill_scratch = detail::prefill_scratch<Arch>;

    struct plan_type {
        prefill_scratch* prefill;       // (workers), or null
        detail::decode_scratch* decode; // (workers), or null
        detail::decode_states* states;  // (requests); of those that decode
        index_t* tasks;                 // (requests + 1), where those of each begin
        index_t* rows;                  // (requests + 1), where the rows of those that decode begin
    };

    /// A register of queries is worth filling from a quarter on; with fewer the cache is read as for one.
    static constexpr bool is_decode(attention_shape const& s) noexcept { return 4 * s.queries <= simd::lanes<Arch>; }

    template <class Arena>
    static plan_type plan(exec_type const& exec, attention_shape const* s, index_t n, Arena& arena) {
        index_t const workers = exec.parallel().concurrency();
        plan_type p{};
        p.tasks = arena.template carve<index_t>(n + 1);
        p.rows = arena.template carve<index_t>(n + 1);
        p.states = arena.template carve<detail::decode_states>(n);
        attention_shape const* prefills = nullptr;
        attention_shape const* decodes = nullptr; // that with most rows
        for (index_t b = 0; b < n; ++b) {
            if (!is_decode(s[b])) {
                prefills = s + b;
                continue;
            }
            auto const states = carve_states(s[b], arena);
            if (p.states != nullptr) p.states[b] = states;
            if (decodes == nullptr || s[b].queries > decodes->queries) decodes = s + b;
        }
        if (decodes != nullptr) {
            p.decode = arena.template carve<detail::decode_scratch>(workers);
            for (index_t w = 0; w < workers; ++w) {
                auto const scratch = carve_decode(*decodes, arena);
                if (p.decode != nullptr) p.decode[w] = scratch;
            }
        }
        if (prefills != nullptr) {
            p.prefill = arena.template carve<prefill_scratch>(workers);
            for (index_t w = 0; w < workers; ++w) {
                auto const scratch = prefill_scratch::carve(*prefills, arena);
                if (p.prefill != nullptr) p.prefill[w] = scratch;
            }
        }
        return p;
    }

    static void run(exec_type const& exec, Arguments const* a, index_t n, plan_type const& p) noexcept {
        p.tasks[0] = p.rows[0] = 0;
        for (index_t b = 0; b < n; ++b) {
            attention_shape const s = a[b].shape();
            bool const decodes = is_decode(s);
            p.tasks[b + 1] = p.tasks[b] + s.kv_heads * (decodes ? p.states[b].parts : blocks(s));
            p.rows[b + 1] = p.rows[b] + (decodes ? s.kv_heads * p.states[b].rows : 0);
        }
        parallel_for(exec.parallel(), p.tasks[n], 1, [&](index_t task, index_t, index_t worker) noexcept {
            index_t const b = request(p.tasks, n, task);
            if (is_decode(a[b].shape()))
                decode(a[b], p, b, task - p.tasks[b], worker);
            else
                prefill(a[b], p, task - p.tasks[b], worker);
        });
        parallel_for(exec.parallel(), p.rows[n], 64, [&](index_t first, index_t last, index_t) noexcept {
            for (index_t r = first, b = request(p.rows, n, first); r < last; ++r) {
                while (r >= p.rows[b + 1]) ++b;
                index_t const row = r - p.rows[b];
                write(a[b], p.states[b], row / p.states[b].rows, row % p.states[b].rows);
            }
        });
    }

private:
    using decode_tile = detail::decode_tile<Arch>;
    using tile = detail::attention_tile<Arch>;

    /// The request that has number i, counted through all: the last that begins at or before it and is not empty.
    static index_t request(index_t const* begins, index_t n, index_t i) noexcept {
        index_t low = 0;
        while (n - low > 1) {
            index_t const middle = low + (n - low) / 2;
            (begins[middle] <= i ? low : n) = middle;
        }
        return low;
    }

    template <class Arena>
    static detail::decode_states carve_states(attention_shape const& s, Arena& arena) {
        index_t const rows = s.queries * s.group();
        index_t const parts = ceil_div(s.keys, decode_tile::part);
        index_t const stride = round_up(s.value_dim, simd::lanes<Arch>);
        index_t const states = detail::saturated_product(s.kv_heads, parts, rows);
        return {arena.template carve<float>(states, stride), arena.template carve<float>(states),
                arena.template carve<float>(states), parts, rows, stride};
    }

    template <class Arena>
    static detail::decode_scratch carve_decode(attention_shape const& s, Arena& arena) {
        index_t const rows = s.queries * s.group();
        detail::decode_scratch r{};
        r.queries = arena.template carve<float>(rows, round_up(s.key_dim, simd::lanes<Arch>));
        r.scores = arena.template carve<float>(rows * decode_tile::keys + simd::lanes<Arch>);
        r.factors = arena.template carve<float>(rows);
        r.keys = arena.template carve<float>(decode_tile::keys, s.key_dim);
        r.values = arena.template carve<float>(decode_tile::keys, s.value_dim);
        if constexpr (simd::multiplies_digits<Arch>) r.codes = detail::code_scratch::carve(rows, s.key_dim, s.value_dim, arena);
        return r;
    }

    /// Registers of queries of a KV head, and the blocks that they are cut into.
    static index_t registers(attention_shape const& s) noexcept { return ceil_div(s.queries, tile::width) * s.group(); }
    static index_t blocks(attention_shape const& s) noexcept {
        return ceil_div(registers(s), prefill_scratch::tiles(s) * tile::vectors);
    }

    static void prefill(Arguments const& a, plan_type const& p, index_t task, index_t worker) noexcept {
        attention_shape const s = a.shape();
        // Blocks of equal size, and the last first: with a causal mask they see most.
        index_t const count = registers(s);
        index_t const step = round_up(ceil_div(count, maximum(blocks(s), 1)), tile::vectors);
        index_t const first = (blocks(s) - 1 - task / s.kv_heads) * step;
        index_t const last = minimum(first + step, count);
        if (first < last) detail::prefill_block<Arch, Arguments>{a, p.prefill[worker], task % s.kv_heads, first, last}.run();
    }

    static void decode(Arguments const& a, plan_type const& p, index_t b, index_t task, index_t worker) noexcept {
        index_t const parts = p.states[b].parts;
        detail::decode_part<Arch, Arguments>{a, p.decode[worker], p.states[b], task / parts, task % parts}.run();
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
        float const inverse = a.finish(head, token, total.maximum, total.sum);
        using out_type = typename decltype(a.out)::value_type;
        for (index_t d = 0; d < a.kv.value_dim; ++d)
            a.out(token, head, d) = static_cast<out_type>(s.parts == 0 ? 0.0f : total.output[d] * inverse);
    }
};

} // namespace tessera::inline TESSERA_ABI
