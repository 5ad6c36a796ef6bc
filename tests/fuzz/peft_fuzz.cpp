// SPDX-License-Identifier: MIT
// Any bytes as adapter_config.json: peft::parse_config throws format_error, or gives a configuration that is written and
// read again as it was.

#include <tessera/interop/peft.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    // An allocation of exactly this size: reading past its end is seen.
    std::unique_ptr<char[]> const copy{new char[size]};
    if (size != 0) std::memcpy(copy.get(), data, size);
    try {
        auto const config = tessera::peft::parse_config({copy.get(), size}, "fuzz");
        auto const again = tessera::peft::parse_config(tessera::peft::config_text(config), "again");
        if (again.r != config.r || again.lora_alpha != config.lora_alpha || again.base_model != config.base_model ||
            again.target_modules != config.target_modules || again.targets_by_expression != config.targets_by_expression || again.rank_pattern.size() != config.rank_pattern.size() ||
            again.scale_of("model.layers.0.q_proj") != config.scale_of("model.layers.0.q_proj"))
            std::abort();
    } catch (tessera::format_error const&) {
        return 0;
    }
    return 0;
}
