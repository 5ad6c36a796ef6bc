// SPDX-License-Identifier: MIT
// Any bytes: safetensors::parse throws format_error, or hands out views that stay inside them.

#include "safetensors_walk.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    // An allocation of exactly this size, aligned as a mapped file is: reading past its end is seen.
    std::unique_ptr<std::byte[]> const copy{new std::byte[size]};
    if (size != 0) std::memcpy(copy.get(), data, size);
    try {
        [[maybe_unused]] static std::uint64_t volatile sink;
        sink = safetensors_test::walk(tessera::safetensors::parse({copy.get(), size}, "fuzz"));
    } catch (tessera::format_error const&) {
        return 0;
    }
    return 0;
}
