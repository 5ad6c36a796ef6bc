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
    for (weighted const& w : list)
        for (std::string const& t : w.source->config.target_modules)
            if (std::find(targets.begin(), targets.end(), t) == targets.end()) targets.push_back(t);
    for (std::string const& name : names) {
        std::vector<dense_low_rank> terms;
        for (weighted const& w : list)
            if (module_adapter const* const m = w.source->find(name); m != nullptr) terms.push_back(w.weight * m->low_rank());
        low_rank_tensor sum = tessera::stack(terms);
        double const rank = static_cast<double>(sum.rank());
        if (result.modules.empty()) result.config.r = sum.rank(), result.config.lora_alpha = rank; // so that the scale is 1
        if (sum.rank() != result.config.r) {
            result.config.rank_pattern.push_back({name, rank});
            result.config.alpha_pattern.push_back({name, rank});
        }
        result.modules.push_back({name, std::move(sum.b()), std::move(sum.a()), {}, 1.0f});
    }
    return result;
}

} // namespace tessera::inline TESSERA_ABI::peft
