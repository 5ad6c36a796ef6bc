// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `apply_grouped`: a family of operators of one shape, each times its own rows of x, in one parallel loop:
///
///     y rows [offsets[g], offsets[g + 1]) = x rows [offsets[g], offsets[g + 1]) W_gᵀ
///
/// what the experts of a mixture and the adapters of a batch are made of. x is prepared once; the loop runs over (operator,
/// tile) pairs, so that unequal loads balance; an operator without rows costs nothing. Rows have the bits that
/// `apply(exec, w[g], ...)` gives them, for any number of threads.
///
/// Operators that compute something of their own from x before the loop (a product: its inner factor; an erased operator: its
/// form of x) run one after another, each in parallel.

#include "../kernels/cpu/gather.hpp"
#include "apply.hpp"
#include "family.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// True where an operator of this kind carves and prepares nothing besides the forms of x: its tiles need no state.
template <class Exec, class Op>
inline constexpr bool plans_nothing = std::is_empty_v<typename kernel<op::apply, Exec, Op>::state>;
template <class Exec, class A, class B>
inline constexpr bool plans_nothing<Exec, sum<A, B>> = plans_nothing<Exec, A> && plans_nothing<Exec, B>;

/// The rows of one member of a family.
struct row_group {
    index_t member;
    index_t rows;
    index_t first_x;    ///< where they begin in the prepared x
    index_t first_y;    ///< and in y
    index_t first_tile; ///< tiles of the groups before this one
    index_t last_tile;
    index_t tile_rows;  ///< of a tile at most
};

/// The groups that have rows, how many tiles they are, and the fewest and most rows of a group.
struct group_list {
    row_group* groups = nullptr;
    index_t count = 0;
    index_t tiles = 0;
    index_t fewest = 0;
    index_t most = 0;
};

/// Whose rows lie where. Rows of y: [offsets[g], offsets[g + 1]) for member g; rows of x: the same, or 0 times them where
/// all members read the same row (x_step is 0 then).
struct group_rows {
    index_t const* offsets;
    index_t members;
    index_t x_step;
};

/// tile_rows(g): of member g.
template <class F>
group_list list_groups(group_rows const& rows, index_t n, F const& tile_rows, row_group* groups) noexcept {
    group_list list{groups};
    for (index_t g = 0; g < rows.members; ++g) {
        index_t const m = rows.offsets[g + 1] - rows.offsets[g];
        if (m == 0) continue;
        index_t const most = tile_rows(g);
        tile_size const tile = product_tile(auto_tile{}, m, n, most);
        index_t const last = list.tiles + ceil_div(m, tile.m) * ceil_div(n, tile.n);
        groups[list.count++] = {g, m, rows.offsets[g] * rows.x_step, rows.offsets[g], list.tiles, last, most};
        list.tiles = last;
        list.fewest = list.count == 1 ? m : minimum(list.fewest, m);
        list.most = maximum(list.most, m);
    }
    return list;
}

/// The loop over the tiles of all groups: f(group, task without accumulator, worker).
template <class Exec, class F>
void for_each_group_tile(Exec const& exec, group_list const& list, index_t n, F const& f) noexcept {
    // A worker takes tiles that follow each other, so that what it fetches ahead of one is the next. Equal groups of few rows
    // are equal work, and each worker gets one piece; eight pieces a worker balance the others.
    index_t const pieces = list.fewest == list.most && list.most <= 16 ? 1 : 8;
    index_t const together = ceil_div(list.tiles, pieces * maximum(1, exec.parallel().concurrency()));
    parallel_for(exec.parallel(), list.tiles, together, [&](index_t first, index_t last, index_t worker) noexcept {
        row_group const* g = list.groups;
        for (index_t left = list.count; left > 1;) { // the last group that begins at or before `first`
            index_t const half = left / 2;
            if (g[half].first_tile <= first) g += half;
            left -= half;
        }
        for (index_t t = first; t < last; ++t) {
            if (t >= g->last_tile) ++g;
            tile_size const tile = product_tile(auto_tile{}, g->rows, n, g->tile_rows);
            index_t const down = ceil_div(g->rows, tile.m);
            // Tiles of the same columns follow each other: their weights are still in the cache.
            index_t const n0 = (t - g->first_tile) / down * tile.n;
            index_t const m0 = (t - g->first_tile) % down * tile.m;
            f(*g, product_task{g->first_x + m0, g->first_x + minimum(m0 + tile.m, g->rows), n0, minimum(n0 + tile.n, n), 1.0f,
                               nullptr, tile.n},
              worker);
        }
    });
}

/// Scratch of every worker: an accumulator tile for each operator of a member, and the operators' own bytes.
struct group_scratch {
    row_group* groups = nullptr;
    index_t area = 0;
    index_t term_bytes = 0;
    float* accumulators = nullptr;
    std::byte* bytes = nullptr;
};

/// Members of a family are tuples of operators that read the same x and make tiles at the same place (gate and up of an
/// expert). `member(g)` is the tuple of references of member g.
template <class Exec, class... Op>
struct grouped_product {
    template <class O>
    using term = kernel<op::apply, Exec, O>;
    using states = std::tuple<typename term<Op>::state...>;
    static constexpr bool runs_at_once = (plans_nothing<Exec, Op> && ...);
    static constexpr auto indices = std::index_sequence_for<Op...>{};
    /// The tiles of `apply`, where a member's operators agree on them.
    static index_t tile_rows(std::tuple<Op const&...> const& ops) noexcept {
        return std::apply([](Op const&... op) { return std::min({tile_rows_of<term<Op>>(op)...}); }, ops);
    }

    /// Carves for groups of at most `most` rows, whatever their number of rows turns out to be.
    template <class Member, class Arena>
    static group_scratch plan(Exec const& exec, Member const& member, index_t members, index_t most, index_t n, Arena& arena) {
        group_scratch s;
        index_t const workers = maximum(1, exec.parallel().concurrency());
        index_t planned = 0;
        // Tiles and scratch grow with the rows up to 16, and from there on.
        for (index_t const m : {minimum(most, 16), most}) {
            for (index_t g = 0; g < members; ++g) {
                tile_size const tile = product_tile(auto_tile{}, m, n, tile_rows(member(g)));
                s.area = maximum(s.area, tile.m * tile.n);
                std::apply([&](Op const&... op) { ((s.term_bytes = maximum(s.term_bytes, term<Op>::scratch_bytes(op, tile))), ...); },
                           member(g));
            }
            if constexpr (!runs_at_once && std::is_same_v<Arena, workspace_sizer>)
                for (index_t g = 0; g < members; ++g) {
                    workspace_sizer alone;
                    plan_states(exec, member(g), m, alone, indices);
                    planned = maximum(planned, alone.bytes());
                }
        }
        s.term_bytes = round_up(s.term_bytes, config::cache_line);
        s.groups = arena.template carve<row_group>(members);
        s.accumulators = arena.template carve<float>(workers, s.area, static_cast<index_t>(sizeof...(Op)));
        s.bytes = arena.template carve<std::byte>(workers, s.term_bytes);
        if constexpr (std::is_same_v<Arena, workspace_sizer>) arena.template carve<std::byte>(planned);
        return s;
    }

    /// finish(group, task, area): the tile of operator i is at task.accumulator + i * area.
    template <class Member, class Inputs, class Finish>
    static void run(Exec const& exec, group_rows const& rows, Member const& member, index_t n, Inputs const& inputs,
                    group_scratch const& s, Finish const& finish) {
        group_list const list = list_groups(rows, n, [&](index_t g) { return tile_rows(member(g)); }, s.groups);
        if (list.count == 0) return;
        if constexpr (runs_at_once) {
            // A form may lay out x in blocks of rows from the first on (float_columns): groups begin anywhere, so of several
            // it is taken as a slice, which such a form answers with rows.
            row_group const& last = list.groups[list.count - 1];
            bool const is_whole = list.count == 1 && last.first_x == 0;
            run_tiles(exec, list, member, n, is_whole ? inputs : inputs.slice(0, last.first_x + last.rows), states{}, s, finish);
        } else {
            for (index_t i = 0; i < list.count; ++i) {
                workspace_scope scope{exec.scratch()};
                row_group one = list.groups[i];
                auto const part = inputs.slice(one.first_x, one.rows);
                auto const planned = plan_states(exec, member(one.member), one.rows, scope, indices);
                prepare(exec, member(one.member), part, planned, indices);
                one.first_x = 0;
                one.last_tile -= one.first_tile;
                one.first_tile = 0;
                run_tiles(exec, group_list{&one, 1, one.last_tile, one.rows, one.rows}, member, n, part, planned, s, finish);
            }
        }
    }

private:
    template <class Ops, class Arena, std::size_t... I>
    static states plan_states(Exec const& exec, Ops const& ops, index_t m, Arena& arena, std::index_sequence<I...>) {
        return states{term<Op>::plan(exec, std::get<I>(ops), m, arena)...};
    }
    template <class Ops, class Inputs, std::size_t... I>
    static void prepare(Exec const& exec, Ops const& ops, Inputs const& inputs, states const& planned,
                        std::index_sequence<I...>) noexcept {
        (term<Op>::prepare(exec, std::get<I>(ops), inputs, std::get<I>(planned)), ...);
    }
    template <class Ops, class Inputs, std::size_t... I>
    static void accumulate(Ops const& ops, Inputs const& inputs, states const& planned, product_task task, index_t area,
                           std::byte* scratch, std::index_sequence<I...>) noexcept {
        auto const one = [&]<class O>(O const& op, typename term<O>::state const& state) noexcept {
            for (index_t i = 0; i < (task.m1 - task.m0) * task.stride; ++i) task.accumulator[i] = 0.0f;
            term<O>::accumulate(op, inputs, state, task, scratch);
            task.accumulator += area;
        };
        (one(std::get<I>(ops), std::get<I>(planned)), ...);
    }
    template <class Member, class Inputs, class Finish>
    static void run_tiles(Exec const& exec, group_list const& list, Member const& member, index_t n, Inputs const& inputs,
                          states const& planned, group_scratch const& s, Finish const& finish) noexcept {
        for_each_group_tile(exec, list, n, [&](row_group const& g, product_task task, index_t worker) noexcept {
            task.accumulator = s.accumulators + worker * s.area * static_cast<index_t>(sizeof...(Op));
            accumulate(member(g.member), inputs, planned, task, s.area, s.bytes + worker * s.term_bytes, indices);
            finish(g, task, s.area);
        });
    }
};

/// Writes a tile to the rows of y that belong to the group.
template <class Y>
void finish_group_tile(row_group const& g, product_task task, matrix_view<Y> const& y) noexcept {
    task.m0 += g.first_y - g.first_x;
    task.m1 += g.first_y - g.first_x;
    finish_tile(task, y, no_epilogue{});
}

/// Members of one operator.
template <class Op>
auto members_of(Op const* w) noexcept {
    return [w](index_t g) noexcept { return std::tuple<Op const&>{w[g]}; };
}

} // namespace detail

/// y = x W_gᵀ, group by group; see the file comment. Throws shape_error where a shape or an offset does not fit, data is
/// null, or y overlaps what is read.
template <execution_policy Exec, linear_operator Op, class X, class EX, class LX, class AX, class Y, class EY, class LY,
          class AY>
void apply_grouped(Exec const& exec, std::span<Op const> w, vector_view<index_t const> offsets, // (operators + 1)
                   view<X, EX, LX, AX> const& x,                                                // (m, k)
                   view<Y, EY, LY, AY> const& y) {                                              // (m, n)
    detail::require_backend<Exec>();
    auto const values = detail::activations("apply_grouped", x);
    auto const members = static_cast<index_t>(w.size());
    detail::check_offsets("apply_grouped", offsets, members, x.extent(0));
    detail::check_family("apply_grouped", w);
    if (members == 0) return;
    check::equal("apply_grouped", "columns of x", x.extent(1), w[0].cols(), "columns of the operators");
    matrix_view<Y> const out = y;
    check::equal("apply_grouped", "rows of y", y.extent(0), x.extent(0), "rows of x");
    check::equal("apply_grouped", "columns of y", y.extent(1), w[0].rows(), "rows of the operators");
    check::elements("apply_grouped", "y", y);
    check::distinct_elements("apply_grouped", "y", out);
    check::no_overlap("apply_grouped", "x", footprint_of(values), "y", footprint_of(out));
    for (Op const& one : w) detail::check_operator_apart("apply_grouped", one, "y", footprint_of(out));
    if constexpr (std::is_same_v<Exec, reference>) {
        for (index_t g = 0; g < members; ++g)
            detail::apply_reference(exec, w[static_cast<std::size_t>(g)],
                                    matrix_view<std::remove_cv_t<X> const>{rows(values, offsets[g], offsets[g + 1])},
                                    matrix_view<Y>{rows(out, offsets[g], offsets[g + 1])}, no_epilogue{});
    } else {
        using product = detail::grouped_product<Exec, Op>;
        workspace_scope scope{exec.scratch()};
        auto const prepared = detail::plan_rows<typename kernel<op::apply, Exec, Op>::forms, Exec>(values, scope);
        auto* const first = scope.carve<index_t>(members + 1);
        for (index_t g = 0; g <= members; ++g) first[g] = offsets[g];
        auto const member = detail::members_of(w.data());
        auto const scratch = product::plan(exec, member, members, x.extent(0), w[0].rows(), scope);
        prepared.inputs.run(exec, values);
        product::run(exec, {first, members, 1}, member, w[0].rows(), prepared.inputs, scratch,
                     [&](detail::row_group const& g, product_task const& task, index_t) noexcept {
                         detail::finish_group_tile(g, task, out);
                     });
    }
}

} // namespace tessera::inline TESSERA_ABI
