// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Routing, plans and the combination of experts on CUDA devices (kernels/routing.hpp, moe/plan.hpp). A warp takes a token: its choices
/// come one after another, each the largest that the ones before it left, so ties go to the smaller index as they do everywhere. Plans
/// are stable counting sorts: chunks of 256 pairs, each sorted by one warp in the order of its pairs. Nothing is atomic, and no number
/// is read by the host.

#include "../../core/cuda_call.cuh"
#include "../../storage/device_memory.cuh"
#include "../kernel.hpp"
#include "../routing.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A place in the order of choices: larger values first, smaller indices first.
struct ranked {
    float value = INFINITY;
    int index = -1;
    __device__ bool is_before(ranked const& other) const { return value > other.value || (value == other.value && index < other.index); }
};

/// The first after `last` among value(0), ..., value(n - 1) with admits(i); all lanes get it.
template <class Value, class Admits>
__device__ __forceinline__ ranked next_ranked(int n, ranked const& last, Value const& value, Admits const& admits) {
    ranked best{-INFINITY, 0x7fffffff};
    for (int i = static_cast<int>(threadIdx.x) % 32; i < n; i += 32) {
        if (!admits(i)) continue;
        float const v = value(i);
        ranked const here{v == v ? v : -INFINITY, i};
        if (last.is_before(here) && here.is_before(best)) best = here;
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
        ranked const other{__shfl_xor_sync(~0u, best.value, d), __shfl_xor_sync(~0u, best.index, d)};
        if (other.is_before(best)) best = other;
    }
    return best;
}

template <class Combine>
__device__ __forceinline__ float warp_reduce(float v, Combine const& combine) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) v = combine(v, __shfl_xor_sync(~0u, v, d));
    return v;
}

__device__ __forceinline__ float device_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// What a gate chooses by, beside the logits: (tokens, experts) and (tokens, groups), of sigmoid gates.
struct device_route_scratch {
    float* choice = nullptr;
    float* group = nullptr;
};

/// Experts of a token by sigmoid, bias and groups.
template <class Gate>
__device__ void choose_by_sigmoid(Gate const& gate, float const* logits, int experts, int k, float* choice, float* group, std::int32_t* index) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    for (int e = lane; e < experts; e += 32) {
        float v = device_sigmoid(logits[e]);
        if (gate.bias.extent(0) != 0) v += gate.bias.data_handle()[e * gate.bias.stride(0)];
        choice[e] = v;
    }
    __syncwarp();
    auto const groups = static_cast<int>(gate.groups);
    int const size = experts / groups;
    ranked last_group{-INFINITY, 0x7fffffff}; // groups at or before it are kept
    if (gate.kept_groups < gate.groups) {
        for (int g = lane; g < groups; g += 32) group[g] = group_rank(choice + g * size, size);
        __syncwarp();
        last_group = ranked{};
        for (index_t i = 0; i < gate.kept_groups; ++i)
            last_group = next_ranked(groups, last_group, [&](int g) { return group[g]; }, [](int) { return true; });
    }
    ranked last;
    for (int j = 0; j < k; ++j) {
        last = next_ranked(experts, last, [&](int e) { return choice[e]; },
                           [&](int e) {
                               if (gate.kept_groups >= gate.groups) return true;
                               float const v = group[e / size];
                               return !last_group.is_before(ranked{v == v ? v : -INFINITY, e / size});
                           });
        if (lane == 0) index[j] = last.index;
    }
}

/// A token a warp.
template <class Gate>
__global__ void __launch_bounds__(128) route_kernel(Gate const gate, __grid_constant__ matrix_view<float const> const logits, __grid_constant__ matrix_view<std::int32_t> const index,
                                                    __grid_constant__ matrix_view<float> const weight, device_route_scratch const scratch) {
    index_t const t = static_cast<index_t>(blockIdx.x) * 4 + threadIdx.x / 32;
    if (t >= logits.extent(0)) return;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    auto const experts = static_cast<int>(logits.extent(1));
    auto const k = static_cast<int>(index.extent(1));
    float const* const of_token = logits.data_handle() + t * logits.stride(0);
    std::int32_t* const chosen = index.data_handle() + t * index.stride(0);
    constexpr bool is_sigmoid = std::is_base_of_v<sigmoid_gate, Gate>;
    if constexpr (is_sigmoid) {
        choose_by_sigmoid(gate, of_token, experts, k, scratch.choice + t * experts, scratch.group + t * gate.groups, chosen);
    } else {
        ranked last;
        for (int j = 0; j < k; ++j) {
            last = next_ranked(experts, last, [&](int e) { return of_token[e]; }, [](int) { return true; });
            if (lane == 0) chosen[j] = last.index;
        }
    }
    __syncwarp();
    float shift = 0.0f;
    float inverse = 1.0f;
    if constexpr (!is_sigmoid) {
        constexpr bool is_over_all = std::is_base_of_v<softmax_gate, Gate>;
        int const count = is_over_all ? experts : k;
        auto const logit = [&](int i) { return of_token[is_over_all ? i : chosen[i]]; };
        float top = -INFINITY;
        for (int i = lane; i < count; i += 32) top = fmaxf(top, logit(i));
        top = warp_reduce(top, [](float a, float b) { return fmaxf(a, b); });
        shift = top == -INFINITY ? 0.0f : top;
        float sum = 0.0f;
        for (int i = lane; i < count; i += 32) sum += expf(logit(i) - shift);
        sum = warp_reduce(sum, [](float a, float b) { return a + b; });
        inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    }
    auto const weight_of = [&](int j) {
        float const l = of_token[chosen[j]];
        if constexpr (is_sigmoid)
            return device_sigmoid(l);
        else
            return expf(l - shift) * inverse;
    };
    float factor = gate.scale;
    if constexpr (is_renormalized<Gate>) {
        float sum = 0.0f;
        for (int j = lane; j < k; j += 32) sum += weight_of(j);
        sum = warp_reduce(sum, [](float a, float b) { return a + b; });
        factor = sum == 0.0f ? 0.0f : factor / sum;
    }
    for (int j = lane; j < k; j += 32) weight.data_handle()[t * weight.stride(0) + j] = weight_of(j) * factor;
}

// --- plans -----------------------------------------------------------------------------------------------------------

/// The arrays of a plan on a device (moe/plan.hpp), and where the next pair of a chunk goes.
struct device_plan {
    static constexpr index_t chunk = 256;
    index_t tokens = 0;
    index_t choices = 0;
    index_t experts = 0;
    index_t* offsets = nullptr; ///< (experts + 1)
    index_t* token = nullptr;   ///< (slots)
    index_t* slot = nullptr;    ///< (tokens, k); -1 where the index is no expert
    index_t* next = nullptr;    ///< (chunks, experts)
    index_t* used = nullptr;    ///< (most_used): experts with a slot in their order, and -1

    TESSERA_HOST_DEVICE constexpr index_t most_used() const noexcept { return minimum(experts, slots()); }
    TESSERA_HOST_DEVICE constexpr index_t slots() const noexcept { return tokens * choices; }
    TESSERA_HOST_DEVICE constexpr index_t chunks() const noexcept { return ceil_div(slots(), chunk); }

    template <class Arena>
    static device_plan carve(index_t tokens, index_t choices, index_t experts, Arena& arena) {
        device_plan p{tokens, choices, experts};
        p.offsets = arena.template carve<index_t>(experts + 1);
        p.token = arena.template carve<index_t>(p.slots());
        p.slot = arena.template carve<index_t>(p.slots());
        p.next = arena.template carve<index_t>(p.chunks(), experts);
        p.used = arena.template carve<index_t>(p.most_used());
        return p;
    }
};

/// f(pair, expert, pairs of this expert before it in the chunk's 32) for every pair of a chunk, a warp; `count` (experts) goes up by
/// what there is of each.
template <class F>
__device__ __forceinline__ void for_each_pair(device_plan const& p, matrix_view<std::int32_t const> const& index, index_t c, F const& f) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    index_t* const next = p.next + c * p.experts;
    for (index_t first = c * device_plan::chunk; first < minimum((c + 1) * device_plan::chunk, p.slots()); first += 32) {
        index_t const pair = first + lane;
        int e = -1;
        if (pair < p.slots()) e = index.data_handle()[pair / p.choices * index.stride(0) + pair % p.choices * index.stride(1)];
        bool const is_there = e >= 0 && e < p.experts;
        unsigned const same = __match_any_sync(~0u, is_there ? e : -1);
        int const before = __popc(same & ((1u << lane) - 1u));
        if (pair < p.slots()) f(pair, is_there ? next + e : nullptr, before);
        __syncwarp();
        if (is_there && before == 0) next[e] += __popc(same);
        __syncwarp();
    }
}

__device__ inline void count_pairs(device_plan const& p, matrix_view<std::int32_t const> const& index, index_t c) {
    index_t* const next = p.next + c * p.experts;
    for (index_t e = threadIdx.x % 32; e < p.experts; e += 32) next[e] = 0;
    for (index_t s = c * device_plan::chunk + threadIdx.x % 32; s < minimum((c + 1) * device_plan::chunk, p.slots()); s += 32) p.token[s] = 0;
    __syncwarp();
    for_each_pair(p, index, c, [](index_t, index_t*, int) {});
}
__device__ inline void place_pairs(device_plan const& p, matrix_view<std::int32_t const> const& index, index_t c) {
    for_each_pair(p, index, c, [&](index_t pair, index_t const* next, int before) {
        index_t const s = next != nullptr ? *next + before : -1;
        p.slot[pair] = s;
        if (s >= 0) p.token[s] = pair / p.choices;
    });
}
/// Sums up to each of 1024 threads, itself included, and of all.
__device__ __forceinline__ index_t block_scan(index_t v, index_t& all) {
    __shared__ index_t of_warp[32];
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32;
    for (int d = 1; d < 32; d *= 2) {
        index_t const other = __shfl_up_sync(~0u, v, d);
        if (lane >= d) v += other;
    }
    __syncthreads();
    if (lane == 31) of_warp[warp] = v;
    __syncthreads();
    all = 0;
    for (int w = 0; w < 32; ++w) {
        if (w < warp) v += of_warp[w];
        all += of_warp[w];
    }
    return v;
}

/// The members with rows, of `count(e)`: counts and how many have one are added up together. f(e, rows before it).
template <class Count, class F>
__device__ __forceinline__ index_t list_used(index_t members, Count const& count, F const& f, index_t* used, index_t most_used) {
    constexpr int shift = 40;
    index_t base = 0;
    for (index_t e0 = 0; e0 < members; e0 += 1024) {
        index_t const e = e0 + threadIdx.x;
        index_t const here = e < members ? count(e) : 0;
        index_t const packed = here > 0 ? here + (index_t{1} << shift) : 0;
        index_t all = 0;
        index_t const before = base + block_scan(packed, all) - packed;
        if (e < members) f(e, before & ((index_t{1} << shift) - 1));
        if (here > 0 && before >> shift < most_used) used[before >> shift] = e;
        base += all;
    }
    for (index_t i = (base >> shift) + threadIdx.x; i < most_used; i += 1024) used[i] = -1;
    return base & ((index_t{1} << shift) - 1);
}

/// Offsets of experts, and of the chunks within them: one block of 1024 threads.
__device__ inline void scan_pairs(device_plan const& p) {
    auto const count = [&](index_t e) {
        index_t sum = 0;
        for (index_t c = 0; c < p.chunks(); ++c) sum += p.next[c * p.experts + e];
        return sum;
    };
    auto const place = [&](index_t e, index_t running) {
        p.offsets[e] = running;
        for (index_t c = 0; c < p.chunks(); ++c) {
            index_t const here = p.next[c * p.experts + e];
            p.next[c * p.experts + e] = running;
            running += here;
        }
    };
    index_t const all = list_used(p.experts, count, place, p.used, p.most_used());
    if (threadIdx.x == 0) p.offsets[p.experts] = all;
}

/// The members that have rows, from offsets, which may be anything.
template <class Index>
__global__ void __launch_bounds__(1024) used_kernel(Index const* offsets, index_t members, index_t slots, Index* used, index_t most_used) {
    auto const has_rows = [&](index_t e) { return index_t{maximum(offsets[e], 0) < minimum(offsets[e + 1], slots)}; };
    list_used(members, has_rows, [](index_t, index_t) {}, used, most_used);
}

/// A plan of few chunks by one block; of many, step by step: 0 counts, 1 scans, 2 places.
template <int Step>
__global__ void __launch_bounds__(1024) plan_kernel(__grid_constant__ device_plan const p, __grid_constant__ matrix_view<std::int32_t const> const index) {
    index_t const warp = (static_cast<index_t>(blockIdx.x) * 1024 + threadIdx.x) / 32;
    index_t const warps = static_cast<index_t>(gridDim.x) * 32;
    if constexpr (Step < 0 || Step == 0)
        for (index_t c = warp; c < p.chunks(); c += warps) count_pairs(p, index, c);
    if constexpr (Step < 0) __syncthreads();
    if constexpr (Step < 0 || Step == 1) scan_pairs(p);
    if constexpr (Step < 0) __syncthreads();
    if constexpr (Step < 0 || Step == 2)
        for (index_t c = warp; c < p.chunks(); c += warps) place_pairs(p, index, c);
}

template <int Sm>
void fill_plan(cuda<Sm> const& exec, device_plan const& p, matrix_view<std::int32_t const> const& index) {
    if (p.chunks() <= 64) {
        launch("plan_experts", stream_of(exec), {dim3(1), dim3(1024)}, &plan_kernel<-1>, p, index);
        return;
    }
    dim3 const grid{static_cast<unsigned>(ceil_div(p.chunks(), 32))};
    launch("plan_experts", stream_of(exec), {grid, dim3(1024)}, &plan_kernel<0>, p, index);
    launch("plan_experts", stream_of(exec), {dim3(1), dim3(1024)}, &plan_kernel<1>, p, index);
    launch("plan_experts", stream_of(exec), {grid, dim3(1024)}, &plan_kernel<2>, p, index);
}

template <class Count>
__global__ void count_kernel(__grid_constant__ device_plan const p, __grid_constant__ vector_view<Count> const counts) {
    index_t const e = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (e < p.experts) counts.data_handle()[e * counts.stride(0)] = p.offsets[e + 1] - p.offsets[e];
}

/// y(t, n); a shared expert's weight is the sigmoid of `shared_weight`. A choice without a slot gives NaN.
template <class Y>
__global__ void combine_kernel(__grid_constant__ combine_arguments const a, __grid_constant__ matrix_view<Y> const y) {
    index_t const t = blockIdx.x;
    float const of_shared = a.shared_weight != nullptr ? device_sigmoid(a.shared_weight[t]) : 1.0f;
    for (index_t n = static_cast<index_t>(blockIdx.y) * 256 + threadIdx.x; n < y.extent(1); n += static_cast<index_t>(gridDim.y) * 256) {
        float sum = 0.0f;
        for (index_t j = 0; j < a.choices; ++j) {
            index_t const s = a.slot[t * a.choices + j];
            float const v = s >= 0 ? a.rows.data_handle()[s * a.rows.stride(0) + n] : NAN;
            sum = fmaf(a.weight.data_handle()[t * a.weight.stride(0) + j * a.weight.stride(1)], v, sum);
        }
        if (a.has_shared) sum = fmaf(of_shared, a.shared.data_handle()[t * a.shared.stride(0) + n], sum);
        y(t, n) = static_cast<Y>(sum);
    }
}

} // namespace detail

template <int Sm, class Gate>
struct kernel<op::route, cuda<Sm>, Gate> {
    using scratch = detail::device_route_scratch;

    template <class Arena>
    static scratch plan(Gate const& gate, index_t tokens, index_t experts, Arena& arena) {
        if constexpr (std::is_base_of_v<sigmoid_gate, Gate>)
            return {arena.template carve<float>(tokens, experts), arena.template carve<float>(tokens, gate.groups)};
        else
            return static_cast<void>(gate), static_cast<void>(tokens), static_cast<void>(experts), static_cast<void>(arena), scratch{};
    }
    static void run(cuda<Sm> const& exec, Gate const& gate, matrix_view<float const> logits, matrix_view<std::int32_t> index,
                    matrix_view<float> weight, scratch const& s) {
        if (logits.extent(0) == 0) return;
        detail::launch("choose_experts", detail::stream_of(exec), {dim3(static_cast<unsigned>(ceil_div(logits.extent(0), 4))), dim3(128)},
                       &detail::route_kernel<Gate>, gate, logits, index, weight, s);
    }
};

template <int Sm, class Y>
struct kernel<op::combine, cuda<Sm>, Y> {
    static void run(cuda<Sm> const& exec, detail::combine_arguments const& a, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::launch("combine", detail::stream_of(exec),
                       {dim3(static_cast<unsigned>(y.extent(0)), static_cast<unsigned>(minimum(ceil_div(y.extent(1), 256), 64)))},
                       &detail::combine_kernel<Y>, a, y);
    }
};

} // namespace tessera::inline TESSERA_ABI
