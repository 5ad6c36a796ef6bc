// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `combine`: the weighted sum of what a token's experts gave, in the order of its choices: the same bits for any plan,
/// any number of threads.
///
/// Error with float output: gamma(k + 1) sum of |weight row|, and the rounding of storing y.

#include "plan.hpp"
#include "router_forward.hpp"

namespace tessera::inline TESSERA_ABI {

/// y_t = sum over j of weight(t, j) * rows(plan.slot(t, j)). Throws shape_error where a shape does not fit, data is null, or y
/// overlaps what is read.
template <execution_policy Exec>
void combine(Exec const& exec, expert_plan const& plan,
             matrix_view<float const> weight, // (tokens, k)
             matrix_view<float const> rows,   // (slots, n)
             matrix_argument auto&& y) {      // (tokens, n)
    detail::require_backend<Exec>();
    auto const to = detail::output(y);
    check::equal("combine", "rows of the weights", weight.extent(0), plan.tokens(), "tokens of the plan");
    check::equal("combine", "columns of the weights", weight.extent(1), plan.choices(), "choices of the plan");
    check::equal("combine", "rows of the slots", rows.extent(0), plan.slots(), "slots of the plan");
    check::equal("combine", "rows of y", to.extent(0), plan.tokens(), "tokens of the plan");
    check::equal("combine", "columns of y", to.extent(1), rows.extent(1), "columns of the slots");
    check::elements("combine", "the weights", weight);
    detail::check_rows("combine", "the slots", rows);
    check::elements("combine", "y", to);
    check::no_overlap("combine", "the weights", footprint_of(weight), "y", footprint_of(to));
    check::no_overlap("combine", "the slots", footprint_of(rows), "y", footprint_of(to));
    detail::combine_arguments const from{plan.choices(), plan.slot_data(), weight, rows, {}, nullptr, false};
    kernel<op::combine, Exec, typename decltype(to)::value_type>::run(exec, from, to);
}

} // namespace tessera::inline TESSERA_ABI
