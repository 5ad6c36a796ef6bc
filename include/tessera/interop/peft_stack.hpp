// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Several PEFT adapters, read at run time, as one: what they add to the model together.
///
///     ts::peft::adapter const parts[] = {ts::peft::read("style"), ts::peft::read("facts")};
///     ts::peft::weighted const list[] = {{parts[0]}, {parts[1], 0.5f}};
///     ts::peft::adapter const both = ts::peft::stack(list);      // modules of either; PEFT reads it, too
///
/// A module that several have gets the sum of their ranks (adapter/combine.hpp: `stack`).

#include "../adapter/combine.hpp"
#include "peft.hpp"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI::peft {

/// An adapter and what its change is multiplied by. Refers to the adapter.
struct weighted {
    weighted(adapter const& which, float weight_of_it = 1.0f) noexcept : source{&which}, weight{weight_of_it} {}
    weighted(adapter const&&, float = 1.0f) = delete;
    adapter const* source;
    float weight;
};

namespace detail {

/// Patterns for the ranks of an adapter's modules. The first whose key is an end of a name counts, and a dot in a key is any
/// character: where ranks differ every module has its own, long ones first, of equally long ones those with fewer dots.
inline void name_ranks(adapter& a) {
    auto const has_other_rank = [&](module_adapter const& m) { return m.rank() != a.config.r; };
    if (std::none_of(a.modules.begin(), a.modules.end(), has_other_rank)) return;
    auto& patterns = a.config.rank_pattern;
    for (module_adapter const& m : a.modules) patterns.push_back({m.name, static_cast<double>(m.rank())});
    auto const dots = [](pattern const& p) { return std::count(p.name.begin(), p.name.end(), '.'); };
    std::sort(patterns.begin(), patterns.end(), [&](pattern const& x, pattern const& y) {
        if (x.name.size() != y.name.size()) return x.name.size() > y.name.size();
        return dots(x) != dots(y) ? dots(x) < dots(y) : x.name < y.name;
    });
    a.config.alpha_pattern = patterns; // so that every scale is 1
}

} // namespace detail

/// @throws unsupported_error where one is a DoRA, which is no sum; shape_error where modules of one name have other shapes, or
/// there is no adapter
inline adapter stack(std::span<weighted const> list) {
    check::at_least("peft::stack", "number of adapters", static_cast<index_t>(list.size()), 1);
    std::vector<std::string> names;
    for (weighted const& w : list) {
        if (w.source->config.use_dora)
            detail::raise<unsupported_error>("tessera: peft::stack: an adapter is a DoRA, expected LoRA: its rows are scaled, so it is no sum");
        for (module_adapter const& m : w.source->modules) names.push_back(m.name);
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    adapter result;
    result.config.base_model = list[0].source->config.base_model;
    auto& targets = result.config.target_modules;
    auto const add_target = [&](std::string const& t) {
        if (std::find(targets.begin(), targets.end(), t) == targets.end()) targets.push_back(t);
    };
    for (weighted const& w : list)
        if (w.source->config.targets_by_expression) // which a list cannot hold: the modules that it found
            for (module_adapter const& m : w.source->modules) add_target(m.name);
        else
            for (std::string const& t : w.source->config.target_modules) add_target(t);
    for (std::string const& name : names) {
        std::vector<dense_low_rank> terms;
        for (weighted const& w : list)
            if (module_adapter const* const m = w.source->find(name); m != nullptr) terms.push_back(w.weight * m->low_rank());
        low_rank_tensor sum = tessera::stack(terms);
        double const rank = static_cast<double>(sum.rank());
        if (result.modules.empty()) result.config.r = sum.rank(), result.config.lora_alpha = rank; // so that the scale is 1
        result.modules.push_back({name, std::move(sum.b()), std::move(sum.a()), {}, 1.0f});
    }
    detail::name_ranks(result);
    return result;
}

} // namespace tessera::inline TESSERA_ABI::peft
